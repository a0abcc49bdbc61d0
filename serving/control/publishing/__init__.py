"""From a directory of YAML to what workers are told.

publisher.py outcome.py
                      the verbs (read this first), and what they answer
compile.py foreign.py origin.py
                      a directory, or another server's model, becomes a snapshot; whose it is
plan.py               what would change
candidates.py candidate_review.py rollout_changes.py rollout_reach.py
                      what is refused: an answer before a shadow, a change under a live
                      rollout, a step whose evidence cannot arrive
publication.py upkeep.py
                      written down, then told; told again to a store that forgot
journal.py stock.py   on the disk: revisions, and model files
"""
