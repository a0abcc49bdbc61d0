"""How one rule stands, by what it looks at.

`events` are errors, slow requests and features that were not fresh; `predictions` their shift,
`copies` what shadows say, `labels` losses, and `limits` are thresholds. `case` is what they are
asked, and has the words that they share.
"""
