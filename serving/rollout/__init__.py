"""Moving traffic to a new version on evidence: what is counted, what it proves, what follows.

`wire` is what workers count and send, `book` adds it up with each key once, `evidence` says what
it proves, `standing` is that in words and numbers, `decide` says what follows, and `state` is what
has happened so far. Nothing here waits, reads or writes: control (`serving.control.rollouts`) and
workers (`serving.worker.evidence.reporter`) do.
"""
