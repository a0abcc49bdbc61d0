"""A value of the canary that may not stay beyond a limit; see `serving.rollout.looks`."""

from msgspec.structs import replace

from serving.config.schema import Rule
from serving.rollout.evidence.relative_risk import total
from serving.rollout.judged.case import Case, number
from serving.rollout.looks import EventBook, beyond, merged
from serving.rollout.standing import RuleStanding, Verdict

__all__ = ["limit"]


def limit(case: Case, book: EventBook) -> RuleStanding:
    """Judge a rule with `test: threshold`."""
    rule, look = case.rule, case.look
    events = total(merged(book, rule.name))
    units = book.requests
    if look.value is None:
        verdict: Verdict = "no_data"
        words = f"fewer than {rule.min_samples:,} requests to tell it by"
    elif look.held.breached:
        verdict = "regressed"
        words = f"{_value(rule, look.value)} for {rule.sustained} or longer"
    elif beyond(rule, look.value):
        verdict = "undecided"
        words = f"{_value(rule, look.value)}, not yet for {rule.sustained}"
    else:
        verdict = "ok"
        words = f"{_value(rule, look.value)}: within its limit"
    return replace(
        case.standing(
            verdict,
            words,
            canary=(events[0], units[0]),
            production=(events[1], units[1]),
            unit="copies" if rule.metric == "shadow_agreement" else "requests",
        ),
        value=look.value,
    )


def _value(rule: Rule, value: float) -> str:
    bounds = []
    if rule.at_most is not None:
        bounds.append(f"at most {number(rule.at_most)}")
    if rule.at_least is not None:
        bounds.append(f"at least {number(rule.at_least)}")
    what = f"quantile {rule.quantile:g} is" if rule.quantile is not None else "value"
    unit = " s" if rule.metric == "latency" and rule.quantile is not None else ""
    return f"{what} {number(value)}{unit} ({' and '.join(bounds) or 'no limit'} allowed)"
