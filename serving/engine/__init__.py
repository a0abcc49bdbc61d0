"""What starts, supervises and scales the processes.

local.py ray_serve/   the two engines
programs.py supervised.py lifecycle.py
what is started, and kept alive
crew.py rolling.py host_fleet.py
workers, their replacement, processes of dedicated versions
autoscale*.py         how many a load wants
directory.py ports.py embedded_store.py
what an engine holds: the data directory, the ports, a store
seed*.py              the views' first rows
node_follower.py refusals.py
what control says, and hears
report.py inspection.py stages.py log_lines.py autopsy.py
what people are told: where all is, what is waited for, who died
"""
