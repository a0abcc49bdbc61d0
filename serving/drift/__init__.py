"""Drift: frozen bins, a test with a known rate of false alarms, data quality, and verdicts.

    freezing.py       a reference's columns become bins               sources.py reads them
    bins.py           values become counts; workers do this
    statistics.py     counts of a window against the reference's      distributions.py: tails
    report.py         windows of counts become a report of columns
    quality.py        what the feature views did, and what was missing
    changes.py        the mean of a stream of losses, since it last changed
    options.py        what `monitoring` says, in the words of each decision
    verdict.py        none, inform, alert, trigger: and why
    retraining.py     whether to ask for a training now

Everything but `sources.py` is pure. The file of a reference is `serving.config.frozen_bins`.
"""
