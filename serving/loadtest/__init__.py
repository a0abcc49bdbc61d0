"""Load tests: requests on a schedule, what became of them, and a verdict.

What is asked:

    scenario.py reading.py quick.py target.py
                          the file's schema, its mistakes, a file made of options, where to
    plan.py arrivals.py popularity.py log_replay.py
                          the whole run before it begins: times, kinds, entities

How it is sent, in processes of their own:

    runner.py process.py wire.py
                          starts them, is one, what they say to each other
    generator.py turns.py alarm.py
                          the open loop: each request when it is due
    bodies.py http_client.py grpc_client.py answers.py outcomes.py
                          bytes out, bytes in, whether that is an answer, what became of it

What comes of it:

    summary.py results.py histogram.py
                          counts by phase, second and kind
    slo.py checks.py against.py words.py
                          the verdict, each SLO, a run before, figures in words
    report/               JSON, JUnit XML and the page
"""
