"""Moves traffic: looks, has `serving.rollout` decide, carries it out.

rollouts.py           the loop (read this first)
verbs.py              promote, pause, resume, approve, abort
observer.py facts.py  what is known at a look
evidence.py evidence_entries.py evidence_log.py
                      what workers counted, exactly once across restarts
labels.py             what outcomes say
log.py announcer.py   remembered before it is done, and told after
notices.py notice_event.py notice_log.py
                      webhooks and files that are told
traffic_seen.py       what a plan would meet
families.py           for Prometheus
"""
