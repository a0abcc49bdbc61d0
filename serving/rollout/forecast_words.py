"""A forecast's warnings: what a step cannot see or reach, in words that say what to do."""

from collections.abc import Iterator
from typing import Final

from serving.config.schema import Rule, Step, step_words

__all__ = ["blind", "cannot_arrive", "span", "unproven"]

_UNITS: Final = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))
_EVENT: Final = {
    "error_rate": "errors",
    "latency": "slow answers",
    "prediction_shift": "predictions of a class",
    "feature_health": "requests without fresh features",
}


def span(seconds: float) -> str:
    """A time as people say it: `9.1 min`, `3.2 h`, `40 s`."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{_short(seconds / size)} {unit}"
    return f"{_short(seconds)} s"


def blind(
    step: Step, rule: Rule, canary_events: float | None, smallest: float | None
) -> Iterator[str]:
    """The step ends before it could see what the rule asks for."""
    if step.bake.max is None or rule.tolerance is None or canary_events is None:
        return
    # Twice what is allowed is what anybody would want to hear of.
    asked = max(2 * rule.tolerance, rule.prove or 0.0)
    if smallest is not None and smallest <= asked:
        return
    seen = f"{_at(step)} sees {_short(canary_events)} {_EVENT[rule.metric]} of the canary"
    what = "no regression at all" if smallest is None else f"nothing below {_short(smallest)} ×"
    yield f"{seen}: {what} can be proven by `{rule.name}`; give it more weight or time"


def unproven(step: Step, rule: Rule, proof_seconds: float | None) -> Iterator[str]:
    """The proof takes longer than the step."""
    if rule.prove is None:
        return
    if proof_seconds is None:
        yield (
            f"{_at(step)} never proves `{rule.name}` below {rule.prove:g} ×: too little happens; "
            "leave out its `prove`, or choose an event that is more frequent"
        )
    elif step.bake.max is not None and proof_seconds > step.bake.max:
        yield (
            f"{_at(step)} is over before `{rule.name}` is proven below {rule.prove:g} ×, which "
            f"takes about {span(proof_seconds)}; give it more weight or time, or a higher `prove`"
        )


def cannot_arrive(
    step: Step, requests: float | None, keys: float | None, answered: float | None
) -> Iterator[str]:
    """What `bake` counts does not come by `bake.max`.

    Args:
        step: it.
        requests: (in a shadow step: copies) of the new version in the step.
        keys: that have met it by its end; None: nobody knows how many there are.
        answered: requests that it has answered by then, in all steps; None: no limit is known.
    """
    bake = step.bake
    if bake.max is None:
        return
    got = requests or 0.0
    if bake.min_samples > got:
        what = "copies" if step.shadow is not None else "requests"
        wanted = f"{bake.min_samples:,} of `min_samples`"
        yield f"{_at(step)} gets about {_short(got)} {what}, not the {wanted}"
    # Not every request is of another key, and not every prediction gets a label.
    met = keys if keys is not None else answered
    if met is not None and bake.min_keys > met:
        wanted = f"{bake.min_keys:,} of `min_keys`"
        yield f"{_at(step)} meets about {_short(met)} keys, not the {wanted}"
    if answered is not None and step.weight is not None and bake.require_labels > answered:
        wanted = f"{bake.require_labels:,} of `require_labels`"
        yield f"{_at(step)} has about {_short(answered)} predictions by its end, not the {wanted}"


def _at(step: Step) -> str:
    longest = "" if step.bake.max is None else f" for at most {span(float(step.bake.max))}"
    return f"{step_words(step)}{longest}"


def _short(number: float) -> str:
    """Two digits are all that a forecast knows."""
    if number < 100:
        return f"{number:.2g}"
    return f"{round(number, 2 - len(str(int(number)))):,.0f}"
