"""Running a rollout's plan against traffic that was made up, to know how it errs before it is used.

`scenarios` says how much traffic there is and how badly it goes, second by second; `world` how
often each thing that the plan's rules count happens with production and with the new version;
`arrivals` and `crowd` draw events from that, request by request or user by user; `trial` takes the
plan through its steps, with the functions of `serving.rollout.evidence` at every look; `verdicts`
sums many trials up. `history` puts the requests of a log in the place of made-up ones.

Everything is an array over many trials at once, and follows from a seed.
"""
