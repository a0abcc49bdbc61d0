"""The endpoints of the admin port, a file for each subject; each is a list of `Operation`.

config.py repository.py candidates.py quarantine.py
                      what is served
rollouts.py           how traffic moves
status.py pages.py    how it goes, for programs and for people
log.py labels.py drift.py retraining.py
                      what was answered, what came of it
features.py           rows that are pushed
"""
