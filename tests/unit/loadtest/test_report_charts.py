"""Pictures of a load test: where things are drawn."""

import re

from serving.loadtest.report.charts import Line, Mark, latency, percentiles, shares
from serving.loadtest.report.document import Slice


def slices(count: int, *, warm: int = 0) -> list[Slice]:
    """So many seconds."""
    return [
        Slice(start=float(at), seconds=1.0, phase="p", warmup=at < warm, scheduled=1, ok=1,
              failed=0, p50=0.001, p90=0.001, p99=0.001, max=0.001)
        for at in range(count)
    ]  # fmt: skip


def test_a_gap_is_not_bridged() -> None:
    """A second without an answer has no latency, and no line runs through it."""
    line = Line(name="p50", css="production", values=[0.001, 0.002, None, 0.004, 0.005])

    assert latency(slices(5), [line]).count('class="line"') == 2


def test_nothing_known_is_no_picture() -> None:
    """Rather than an empty frame."""
    assert latency(slices(2), [Line(name="p50", css="x", values=[None, None])]) == ""
    assert percentiles([]) == ""


def test_a_deadline_far_above_stays_inside_the_frame() -> None:
    """The axis has room for what must not be exceeded."""
    line = Line(name="p50", css="production", values=[0.001])
    text = latency(slices(1), [line], [Mark(name="deadline", value=1.0)])
    [y] = re.findall(r'class="threshold"[^>]* y1="([\d.]+)"', text)

    assert 20 <= float(y) < 230


def test_percentiles_rise_from_left_to_right() -> None:
    """Both coordinates of the curve are in order."""
    text = percentiles([(0.001, 90), (0.01, 9), (0.1, 1)])
    [d] = re.findall(r'class="line" d="M([^"]*)"', text)
    points = [tuple(map(float, point.split())) for point in d.split("L")]

    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert [y for _, y in points] == sorted((y for _, y in points), reverse=True)
    assert "p99" in text


def test_shares_are_in_the_order_of_their_size() -> None:
    """The largest first; those that are bad are red wherever they stand."""
    text = shares({"503": 2, "200": 8}, 10, bad={"503"})

    assert re.findall(r"<title>(\w+):", text) == ["200", "503"]
    assert re.findall(r'<g class="(\w+)"', text) == ["production", "bad"]
