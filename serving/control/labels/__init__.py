"""Outcomes of what was answered.

desk.py               takes them, and answers what they say
joiner_process.py joiner_orders.py joiner.py
                      the child process that reads the log: started, asked, at work
performance.py loss_windows.py rollout_losses.py
                      what it works out (figures are `serving.performance`)
"""
