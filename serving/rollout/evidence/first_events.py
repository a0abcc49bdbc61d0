"""What counting each user once does to a ratio, and what may be concluded of it all the same.

Of a version that fails twice as often, users who fail at all are not twice as many: those who
would have failed twice count once. With each user's own rate u (mean 1, variance v) the ratio of
the shares of users that had the event is, to first order in production's share p,

    r · (1 − (r − 1) (1 + v) p / 2),

so it comes close to 1 as nearly everybody has had it, whatever r is. A breach is only harder to
prove by that. A proof would come by itself: among users who had ten errors each, a canary twice
as bad was "proven" to be below 2 in every simulated rollout. So the ratio that has to be refuted
shrinks along, as (1 − p)^(2r), which is that formula for v = 3: a quarter of the users cause
everything. `docs/decisions.md` has what it does to false proofs and to true ones.
"""

__all__ = ["ratio_of_users"]


def ratio_of_users(ratio: float, share: float) -> float:
    """The ratio of users with an event that a ratio of rates leaves at least.

    Args:
        ratio: of the rates at which a user meets the event, 1 or above.
        share: production's users who have met it, of all of production's.
    """
    left: float = (1 - min(1.0, max(0.0, share))) ** (2 * ratio)
    return 1 + (ratio - 1) * left
