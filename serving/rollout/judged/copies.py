"""Whether shadow copies say what production said, and whether they fail more often."""

import math

from msgspec.structs import replace

from serving.rollout.evidence.agreement import (
    log_failing_more,
    log_share,
    log_share_below,
    share_interval,
)
from serving.rollout.evidence.relative_risk import average, log_proof
from serving.rollout.judged.case import Case, finite, reached
from serving.rollout.judged.events import crowded
from serving.rollout.looks import EventBook
from serving.rollout.standing import RuleStanding

__all__ = ["agreement"]


def agreement(case: Case, book: EventBook) -> RuleStanding:
    """Judge `shadow_agreement`: `canary_events` are copies that differed or that alone failed."""
    told = book.shadow
    agree, differ, failed, only_production = (
        told.get(outcome, 0) for outcome in ("agree", "differ", "failed", "production_failed")
    )
    copies, pairs = agree + differ, failed + only_production
    counted = {
        "canary": (differ + failed, copies + pairs),
        "production": (only_production, copies + pairs),
    }
    if not copies and not pairs:
        return case.standing("no_data", "no copies yet", unit="copies")
    if book.crowded(case.rule.name):
        return replace(crowded(case), unit="copies")
    at_least, tolerance = case.rule.at_least, case.tolerance
    logs = [log_failing_more(failed, only_production, tolerance)]
    if at_least is not None:
        logs.append(log_share_below(agree, copies, at_least))
    log_e = average(logs)
    found = case.standing("ok", "", log_e=log_e, unit="copies", **counted)
    if copies:
        found = replace(
            found,
            value=agree / copies,
            low=finite(share_interval(agree, copies, case.alpha).low),
            high=finite(share_interval(agree, copies, case.share / len(logs)).high),
        )
    bound = -math.log(case.share)
    if log_e >= bound:
        found.verdict = "regressed"
        # Of two whose mean is enough at least one is.
        worse = ["it fails where production does not"] if logs[0] >= bound else []
        if at_least is not None and logs[-1] >= bound:
            worse.insert(0, f"less than {at_least:.4g} agree")
        end = f"proven: {' and '.join(worse)}"
    elif case.rule.prove is not None:
        end = _proof(case, found, (agree, copies), (failed, only_production))
    else:
        end = "nothing is proven against it"
    found.words = f"{_said(found, agree, copies)}, {_failures(failed, only_production)}: {end}"
    return found


def _proof(case: Case, found: RuleStanding, shares: tuple[int, int], pairs: tuple[int, int]) -> str:
    """Agreement from `at_least` on is proven, and if copies failed, that they do less than `prove`.

    Without a failure on either side there is nothing to compare, and nothing to fear.
    """
    agree, copies = shares
    logs = []
    if case.rule.at_least is not None:
        above = bool(copies) and agree / copies > case.rule.at_least
        logs.append(log_share(agree, copies, case.rule.at_least) if above else 0.0)
    if any(pairs) and case.rule.prove is not None:
        logs.append(log_proof({0.5: pairs}, case.rule.prove))
    log = min(logs, default=math.inf)
    found.proof = reached(log, case.alpha)
    if log >= -math.log(case.alpha):
        return "proven" if logs else "nothing is proven against it"
    found.verdict = "undecided"
    return "not yet proven"


def _said(found: RuleStanding, agree: int, copies: int) -> str:
    if not copies:
        return "no copy could be compared"
    return (
        f"{agree:,} of {copies:,} copies agree ({found.value:.2%}, between {found.low:.2%} and "
        f"{found.high:.2%})"
    )


def _failures(failed: int, only_production: int) -> str:
    if not failed and not only_production:
        return "none failed alone"
    return f"{failed:,} failed where production did not, {only_production:,} the other way"
