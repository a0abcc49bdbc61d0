"""What is seen of models.

drift.py drift_parts.py drift_families.py
                      traffic against references (decisions are `serving.drift`)
harm.py harm_state.py what models lose, measured or estimated
events.py             what changed its level, remembered
"""
