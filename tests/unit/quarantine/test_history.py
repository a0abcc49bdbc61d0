"""What two nodes know of crashes becomes one, whoever speaks first and however often."""

from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from serving.quarantine.decision import Crash, Quarantined, Suspect
from serving.quarantine.history import Register, removed, united, with_crash

BYTES = "b" * 64
NOBODY = Register()


def crash(at: float, version: str = "v2", node: str = "near", worker: str = "worker-0") -> Crash:
    """A worker's death of one version."""
    suspects = (Suspect("m", version, BYTES),)
    return Crash(at=at, worker=worker, signal="SIGFPE", suspects=suspects, node=node)


def after(*crashes: Crash) -> Register:
    """What a node knows after these."""
    register = NOBODY
    for one in crashes:
        register, _ = with_crash(register, one)
    return register


def lifted(register: Register) -> Register:
    """The same when everything has been let back."""
    return removed(register, lambda _: True)[0]


def versions(register: Register) -> list[str]:
    """What is in quarantine."""
    return [one.version for one in register.quarantined]


def test_what_one_node_quarantined_the_other_does() -> None:
    """With its reason, and since when."""
    far = after(crash(1.0, node="far"), crash(2.0, node="far"))

    assert united(NOBODY, far).quarantined == far.quarantined
    assert far.quarantined[0].reason.endswith("(last worker-0 on far, SIGFPE)")


def test_one_crash_on_each_of_two_nodes_is_two() -> None:
    """Control counts them together."""
    near, far = after(crash(1.0)), after(crash(9.0, node="far"))

    assert versions(near) == versions(far) == []
    assert versions(united(near, far)) == ["v2"]


def test_a_crash_that_is_told_twice_counts_once() -> None:
    """A node says what it knows every second."""
    far = after(crash(1.0, node="far"))
    once = united(NOBODY, far)

    assert united(once, far) is once
    assert versions(once) == []


def test_a_lift_reaches_the_node_that_quarantined() -> None:
    """Its crashes are forgiven there too: one more does not bring the entry back."""
    far = after(crash(1.0, node="far"), crash(2.0, node="far"))
    near = lifted(united(NOBODY, far))

    far = united(far, near)
    again, new = with_crash(far, crash(3.0, node="far"))

    assert versions(far) == versions(again) == []
    assert new == []
    assert versions(with_crash(again, crash(4.0, node="far"))[0]) == ["v2"]


def test_a_node_that_has_not_heard_of_a_lift_does_not_undo_it() -> None:
    """Its word is late, whatever its clock says."""
    far = after(crash(1e9, node="far"), crash(1e9 + 1, node="far"))
    near = lifted(united(NOBODY, far))

    assert united(near, far) is near


def test_a_version_that_crashes_again_after_a_lift_is_quarantined_again() -> None:
    """On a node whose clock is behind, too."""
    near = lifted(after(crash(100.0), crash(101.0)))
    far = united(NOBODY, near)
    for at in (7.0, 8.0):
        far, _ = with_crash(far, crash(at, node="far"))

    assert versions(united(near, far)) == ["v2"]


def test_two_nodes_that_quarantined_at_once_agree_on_one_entry() -> None:
    """The older; so one lift ends it on both."""
    near, far = after(crash(1.0), crash(2.0)), after(crash(3.0, node="far"), crash(4.0, node="far"))

    assert united(near, far).quarantined == united(far, near).quarantined == near.quarantined
    assert versions(united(united(far, near), lifted(united(near, far)))) == []


def test_a_node_keeps_fifty_crashes_whoever_tells_it_more() -> None:
    """Those that were dropped are no news when they are told again."""
    many = after(*(crash(1000.0 * number, f"v{number}") for number in range(50)))
    old = after(crash(-9.0, "old", node="far"), crash(-8.0, "old", node="far"))
    kept = united(many, Register(crashes=old.crashes))

    assert kept is many


words = st.lists(
    st.tuples(st.sampled_from(["near", "far"]), st.integers(0, 300), st.sampled_from(["v1", "v2"])),
    max_size=8,
    unique_by=lambda one: one[1],
)


@given(words, st.booleans())
def test_hearing_is_the_same_in_every_order(
    crashes: list[tuple[str, int, str]], lift: bool
) -> None:
    """Of three parties, each of which hears both others, all know the same entries."""
    parties = [
        after(*(crash(at, version, who) for who, at, version in crashes if who == node))
        for node in ("near", "far")
    ]
    parties.append(lifted(parties[0]) if lift else NOBODY)

    outcomes: list[list[Quarantined]] = []
    for order in permutations(
        [Register(quarantined=p.quarantined, lifted=p.lifted) for p in parties]
    ):
        register = NOBODY
        for one in (*order, *order):
            register = united(register, one)
        outcomes.append(register.quarantined)

    assert all(one == outcomes[0] for one in outcomes)
