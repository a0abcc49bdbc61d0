"""What loadtests/overload.py makes of its runs: rates by outcome, recovery, a page, a picture."""

from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import script_kit

from serving.loadtest.results import Counts, GeneratorCheck, PhaseResult, Result


@pytest.fixture(scope="module")
def overload() -> Any:
    """Both modules, which live beside the package."""
    return SimpleNamespace(
        points=script_kit.module("overload_points"), report=script_kit.module("overload_report")
    )


def counts(good: int, late: int = 0, **statuses: int) -> Counts:
    """So many in time, so many too late; by status what was refused, `lost` for no answer."""
    lost = statuses.pop("lost", 0)
    errors = {name.removeprefix("s"): count for name, count in statuses.items()}
    answered = good + late + sum(errors.values())
    found = Counts(
        scheduled=answered + lost,
        sent=answered + lost,
        answered=answered,
        ok=good + late,
        good=good,
        statuses={"200": good + late, **errors},
    )
    found.latency.add(0.05, good + late)
    found.rejected.add(0.002, sum(errors.values()))
    return found


def result(*phases: tuple[str, float, Counts], late: float = 0.001) -> Result:
    """A run of these phases, its generator late by so much."""
    check = GeneratorCheck()
    check.lag.add(late, 100)
    return Result(
        scenario="overload",
        target="http://127.0.0.1:8000",
        protocol="http json",
        started=0.0,
        seconds=10.0,
        seed=1,
        connections=10,
        phases=[
            PhaseResult(name=name, seconds=seconds, counts=one) for name, seconds, one in phases
        ],
        whole=Counts(),
        whole_seconds=10.0,
        generator=check,
    )


def test_every_request_is_in_one_column(overload: Any) -> None:
    """In time, refused, expired, late, lost and failed add up to what was offered."""
    steady = counts(100, 20, s503=300, s429=20, s504=8, s500=4, lost=48)

    one = overload.points.point(result(("settle", 1, counts(9)), ("steady", 4, steady)), 4.0, 50.0)

    assert (one.goodput, one.late, one.refused) == (25.0, 5.0, 80.0)
    assert (one.expired, one.errors, one.lost) == (2.0, 1.0, 12.0)
    assert one.offered == 25.0 + 5.0 + 80.0 + 2.0 + 1.0 + 12.0
    assert one.share == 0.5


def test_a_load_with_nobody_refused_has_no_time_of_refusal(overload: Any) -> None:
    """It is said to be missing, and not 0."""
    one = overload.points.point(result(("steady", 4, counts(100))), 0.5, 50.0)

    assert one.refused_p99 is None


def test_a_generator_that_was_late_voids_the_point(overload: Any) -> None:
    """What was measured then is the generator, and the table says so."""
    one = overload.points.point(result(("steady", 4, counts(100)), late=0.03), 2.0, 50.0)

    assert not one.valid
    assert "2x void" in overload.report.lines(overload.points.Server(name="a", points=[one]))[1]


@pytest.mark.parametrize(
    ("shares", "seconds"),
    [
        ([10] * 20, 0.0),
        ([0, 5] + [10] * 18, pytest.approx(0.2)),
        ([10, 10, 5] + [10] * 17, 0.0),
        ([10, 0, 0, 10, 7] + [10] * 15, pytest.approx(0.3)),
        ([0, 10] * 10, None),
        ([10] * 9, None),
    ],
    ids=["at once", "after two", "one slip", "slips", "never", "too short to say"],
)
def test_recovery_is_when_the_first_good_second_begins(
    overload: Any, shares: list[int], seconds: float | None
) -> None:
    """Of a second's requests nine in ten must be in time, and of those of its first tenth."""
    after = [
        (f"after-{number:03}", 0.1, counts(good, lost=10 - good))
        for number, good in enumerate(shares)
    ]

    found = overload.points.recovery(result(("spike", 3.0, counts(60)), *after), 4.0)

    assert found.seconds == seconds
    assert found.goodput == 20.0


def test_a_spike_ends_where_its_tenths_begin(overload: Any) -> None:
    """The schedule is half load, the spike, and half load again in tenths of a second."""
    made = overload.points.spike(
        "127.0.0.1:1", "m", ["b.json"], capacity=200.0, factor=4.0, seconds=3.0, limits={}
    )

    before, spike, *after = made.phases
    assert (before.rate, spike.rate, spike.length) == (100.0, 800.0, 3.0)
    assert {(one.rate, one.length) for one in after} == {(100.0, 0.1)}


def figures(overload: Any, *names: str) -> Any:
    """Two loads of each of these servers."""
    servers = [
        overload.points.Server(
            name=name,
            points=[
                overload.points.point(result(("steady", 4, counts(200))), 1.0, 50.0),
                overload.points.point(result(("steady", 4, counts(180, s503=620))), 4.0, 50.0),
            ],
            recovery=overload.points.Recovery(
                factor=4.0, lasted=3.0, goodput=45.0, seconds=None, lag_p99=0.001
            ),
        )
        for name in names
    ]
    about = {
        **dict.fromkeys(("date", "cpu", "cores", "kernel", "python"), "x"),
        "packages": {},
    }
    return overload.report.Found(about=about, run_ms=2.5, deadline_ms=100.0, servers=servers)


def test_the_page_keeps_its_words_and_gets_new_figures(overload: Any) -> None:
    """What is between the marks is replaced, as often as one likes."""
    report = overload.report
    page = f"before\n{report.BEGIN}\nold\n{report.END}\nafter"
    found = figures(overload, "sluice")

    once = report.page(page, found)

    assert once.startswith("before\n")
    assert once.endswith("\nafter")
    assert "old" not in once
    assert "| sluice | 50 | 100% | 90% | 90% | 2.0 ms | " in once
    assert report.page(once, found) == once


def test_the_page_names_the_largest_load(overload: Any) -> None:
    """Figures of other loads than 4 times are not called that."""
    report = overload.report
    found = figures(overload, "sluice")
    [server] = found.servers
    server.points[-1] = overload.points.point(result(("steady", 4, counts(180))), 2.5, 50.0)

    made = report.page(f"{report.BEGIN}\n{report.END}", found)

    assert "| at 2.5x | of peak | refused p99 at 2.5x |" in made
    assert "4x |" not in made


def test_a_page_without_a_place_for_figures_is_not_touched(overload: Any) -> None:
    """The error says what to write into it."""
    with pytest.raises(ValueError, match="figures: begin"):
        overload.report.page("no marks", figures(overload, "sluice"))


def test_a_server_measured_again_replaces_itself(overload: Any) -> None:
    """Others keep the figures they had."""
    before, newer = figures(overload, "sluice", "uvicorn"), figures(overload, "sluice")

    joined = before.joined(newer)

    assert [one.name for one in joined.servers] == ["sluice", "uvicorn"]
    assert joined.servers[0] == newer.servers[0]
    assert joined.servers[1] == before.servers[1]


def test_a_spike_measured_alone_leaves_the_loads(overload: Any) -> None:
    """The server keeps its points and has the newer spike."""
    before, newer = figures(overload, "sluice"), figures(overload, "sluice")
    [server] = newer.servers
    spike = overload.points.Recovery(
        factor=4.0, lasted=3.0, goodput=1.0, seconds=0.5, lag_p99=0.001
    )
    newer.servers = [overload.points.Server(name="sluice", points=[], recovery=spike)]

    [joined] = before.joined(newer).servers

    assert joined.points == server.points
    assert joined.recovery == spike


def test_the_picture_has_a_line_for_each_server(overload: Any) -> None:
    """It is well-formed SVG, with names beside the lines."""
    drawn = overload.report.picture(figures(overload, "a", "b<c").servers)
    picture = ET.fromstring(drawn)  # noqa: S314 - ours

    space = {"s": "http://www.w3.org/2000/svg"}
    assert len(picture.findall("s:path", space)) == 2
    assert "b<c" in [text.text for text in picture.findall("s:text", space)]
