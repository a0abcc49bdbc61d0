"""Requests for training, and what comes back.

retraining.py state.py
                      when one is sent (decisions are `serving.drift.retraining`), remembered
event.py deliveries.py
                      what is sent, and how: a webhook, Airflow, a program
candidate_gate.py     whether what came back may be a shadow
"""
