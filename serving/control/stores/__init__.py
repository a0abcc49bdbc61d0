"""Where workers read what is published, and send what they counted.

store.py redis_store.py
                      what is published: in memory, and in Redis
evidence_store.py redis_evidence.py
                      evidence, the same way
redis_calls.py        how Redis is asked
"""
