import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving import metrics_folder
from serving.metrics import MetricsFile, Samples
from serving.metrics_folder import RETIRED, fold, is_owned, totals

REQUESTS = {"model": "m", "version": "v1", "role": "production", "protocol": "http", "code": "OK"}
REQUESTS_KEY = ("sluice_requests_total", tuple(REQUESTS.values()))
VERSION = {"model": "m", "version": "v1"}


def write(folder: Path, name: str, requests: int) -> Path:
    """One process's file: some requests, a queue, a moment and a histogram."""
    file = MetricsFile(folder / f"{name}.metrics", capacity=1 << 16)
    file.counter("sluice_requests_total", **REQUESTS).inc(requests)
    file.gauge("sluice_queue_requests", **VERSION).set(3)
    file.gauge("sluice_last_inference_timestamp_seconds", **VERSION).set(1000 + requests)
    file.histogram("sluice_batch_rows", **VERSION).observe(requests)
    file.close()
    return file.path


def requests(samples: Samples) -> float:
    """The request total."""
    return samples[REQUESTS_KEY][0]


def dead(_: Path) -> bool:
    """Nobody lives."""
    return False


def test_folding_changes_no_counter_and_no_histogram(tmp_path: Path) -> None:
    """What the dead counted is the same before and after their files are gone."""
    write(tmp_path, "worker-1-1", 5)
    write(tmp_path, "worker-2-1", 7)
    before = totals(tmp_path)

    assert fold(tmp_path, dead) == 2

    after = totals(tmp_path)
    assert requests(after) == 12
    histogram = ("sluice_batch_rows", ("m", "v1"))
    assert after[histogram] == before[histogram]
    assert list(tmp_path.glob("*.metrics")) == []


def test_a_dead_process_has_no_queue_any_more_but_its_last_answer_stays(tmp_path: Path) -> None:
    """Gauges go with their process; a moment in time stays true."""
    write(tmp_path, "worker-1-1", 5)

    fold(tmp_path, dead)

    after = totals(tmp_path)
    assert ("sluice_queue_requests", ("m", "v1")) not in after
    assert after["sluice_last_inference_timestamp_seconds", ("m", "v1")] == [1005]


def test_a_living_process_is_left_alone(tmp_path: Path) -> None:
    """Only the files of the dead are folded."""
    alive = write(tmp_path, "worker-1-1", 5)
    write(tmp_path, "worker-2-1", 7)

    assert fold(tmp_path, lambda path: path == alive) == 1

    assert alive.exists()
    assert requests(totals(tmp_path)) == 12


def test_a_crash_before_the_files_are_deleted_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the sums were written, the next reader and the next fold still agree."""
    write(tmp_path, "worker-1-1", 5)

    def killed(_: Path, **_options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            fold(tmp_path, dead)

    assert requests(totals(tmp_path)) == 5
    assert fold(tmp_path, dead) == 0
    assert requests(totals(tmp_path)) == 5
    assert list(tmp_path.glob("*.metrics")) == []


def test_a_crash_before_the_sums_are_in_place_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while writing the sums, the old sums and all files are still there."""
    write(tmp_path, "worker-1-1", 5)
    fold(tmp_path, dead)
    write(tmp_path, "worker-2-1", 7)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            fold(tmp_path, dead)

    assert requests(totals(tmp_path)) == 12
    fold(tmp_path, dead)
    assert requests(totals(tmp_path)) == 12


@settings(max_examples=25, deadline=None)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("start"), st.integers(0, 50)),
            st.tuples(st.just("fold"), st.integers(0, 9)),
        ),
        max_size=12,
    )
)
def test_totals_never_go_back(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    """Whatever starts, dies and is folded in whatever order, the total is what was counted."""
    folder = tmp_path_factory.mktemp("metrics")
    counted = 0
    for number, (step, amount) in enumerate(steps):
        if step == "start":
            write(folder, f"worker-{number}-1", amount)
            counted += amount
        else:
            fold(folder, lambda path, kept=amount: hash(path.name) % 10 < kept)
        seen = totals(folder).get(REQUESTS_KEY, [0.0])[0]
        assert seen == counted


def test_a_file_that_vanishes_while_it_is_listed_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that meets a fold half-way still sees every request."""
    write(tmp_path, "worker-1-1", 5)
    real_read = metrics_folder.read

    def folded_meanwhile(path: Path) -> Samples:
        with monkeypatch.context() as patched:
            patched.setattr(metrics_folder, "read", real_read)
            fold(tmp_path, dead)
        return real_read(path)

    monkeypatch.setattr(metrics_folder, "read", folded_meanwhile)

    assert requests(totals(tmp_path)) == 5


def test_a_family_this_version_does_not_know_is_left_out(tmp_path: Path) -> None:
    """An older version's sums do not break a newer one's page."""
    (tmp_path / RETIRED).write_text(
        '{"folded":[],"samples":[{"name":"sluice_gone_total","labels":[],"slots":[1]},'
        '{"name":"sluice_batch_rows","labels":["m","v1"],"slots":[1,2]}]}'
    )

    assert totals(tmp_path) == {}


def test_a_file_is_owned_until_its_process_ends(tmp_path: Path) -> None:
    """A killed process lets go of its numbers; a running one does not."""
    path = tmp_path / "worker-0-1-1.metrics"
    code = (
        "import sys; from pathlib import Path; from serving.metrics import MetricsFile\n"
        "file = MetricsFile(Path(sys.argv[1])); print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout
        child.stdout.readline()
        owned_before = is_owned(path)
        child.kill()
        child.wait()

    assert owned_before
    assert not is_owned(path)


def test_a_file_that_is_just_being_made_is_owned(tmp_path: Path) -> None:
    """Between creating and locking it a file has no header yet, and is not taken for dead."""
    path = tmp_path / "worker-0-1-1.metrics"
    path.touch()

    assert is_owned(path)
    assert fold(tmp_path) == 0
    assert path.exists()
