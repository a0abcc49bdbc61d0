"""Workers, hosts and nodes.

workers.py worker_sockets.py
                      what workers report, and where they are asked
rates.py exposition.py
                      what they count: as rates, and as Prometheus' page
rolls.py host_list.py what the engine is to follow: settings, code, processes for a version
director.py           what other nodes are told
quarantine.py         versions that crashed workers
"""
