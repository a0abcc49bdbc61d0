"""What a worker tells of rollouts: who met which version, and what came of it.

From a request to control:

    watch.py              what a request does (read this first)
    notes.py faults.py in_flight.py
                          what it leaves behind, and while it is on its way
    counting.py signals.py rules.py
                          what becomes of that
    reporter.py sender.py outbox.py
                          that control hears of it
    orphans.py            of workers that died
    hard_stop.py          a canary that plainly fails is stopped here and at once
"""
