"""What counts prove, at every look: nothing here waits, reads or knows a configuration.

`relative_risk` is the engine of most rules: events of canary and production, by the probability
with which the canary was drawn. `first_events` is about users who count once. `sample_ratio` asks
whether the canary was drawn so. `shift` is one such process per bin of the predictions, `latency`
one per bound, `agreement` is for shadow copies, which come in pairs. `losses` is for means: of
labelled losses, and of differences. `threshold` compares a value with a limit, without an error
bound. `power` says how many events all this needs.

E-values are kept as logarithms. An e-value E of a null hypothesis has a mean of at most 1 under
it, at any time that may depend on what was seen; so P(E ever reaches 1/α) ≤ α (Ville 1939), and
the average of several E is one again, whatever they have to do with each other.
"""
