"""A version that crashes workers is found out, taken out of the traffic, and kept out.

A worker marks which version each of its threads runs (`marks`) and, if a signal kills it, leaves
which thread that was (`last_words`). Whoever supervises it reads both, decides (`decision`) and
writes it down (`register`), where workers and control read it. What nodes tell each other of it is
united (`history`).
"""
