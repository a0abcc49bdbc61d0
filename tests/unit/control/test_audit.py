from pathlib import Path

import pytest

from serving.clock import ManualClock
from serving.control.audit import AuditLog, verify


async def write(folder: Path, *verbs: str) -> Path:
    """A log of some verbs."""
    log = AuditLog(folder, ManualClock())
    for verb in verbs:
        await log.record(who="ann", verb=verb, subject="demo", result="ok")
    return folder / "audit.jsonl"


async def test_an_untouched_log_verifies(tmp_path: Path) -> None:
    """Records of two runs of the process make one chain."""
    await write(tmp_path, "apply", "load")
    path = await write(tmp_path, "unload")

    assert verify(path) == []
    assert len(path.read_bytes().splitlines()) == 3
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("name", "tamper", "line"),
    [
        ("changed", lambda lines: [lines[0].replace(b"ann", b"bob"), *lines[1:]], 2),
        ("removed", lambda lines: [lines[0], *lines[2:]], 2),
        ("removed first", lambda lines: lines[1:], 1),
        ("swapped", lambda lines: [lines[0], lines[2], lines[1], lines[3]], 2),
        ("inserted", lambda lines: [lines[0], lines[0], *lines[1:]], 2),
    ],
)
async def test_tampering_breaks_the_chain(
    tmp_path: Path, name: str, tamper: object, line: int
) -> None:
    """Whatever was done to the middle of the file, the first wrong place is named."""
    assert name
    path = await write(tmp_path, "apply", "load", "unload", "apply")
    assert callable(tamper)
    path.write_bytes(b"\n".join(tamper(path.read_bytes().splitlines())) + b"\n")

    assert verify(path)[0].startswith(f"line {line} ")


async def test_a_rewritten_end_is_noticed_by_the_head(tmp_path: Path) -> None:
    """Cutting lines off the end leaves a valid chain, with another head."""
    await write(tmp_path, "apply", "load")
    path = tmp_path / "audit.jsonl"
    before = AuditLog(tmp_path, ManualClock()).head
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])

    assert verify(path) == []
    assert AuditLog(tmp_path, ManualClock()).head != before


async def test_a_torn_line_is_named_and_the_chain_goes_on(tmp_path: Path) -> None:
    """After a crash in mid-write the next records still follow what is there."""
    path = await write(tmp_path, "apply")
    with path.open("ab") as file:
        file.write(b'{"at": 1')
    await write(tmp_path, "load", "unload")

    assert verify(path) == ["line 2 is no audit record"]


async def test_a_line_break_in_a_text_stays_in_its_line(tmp_path: Path) -> None:
    """Nobody forges a record through a model's name or a reason."""
    log = AuditLog(tmp_path, ManualClock())
    await log.record(who="ann\n{}", verb="apply", subject="a\r\nb", result="x" * 10_000)
    path = tmp_path / "audit.jsonl"

    assert len(path.read_bytes().splitlines()) == 1
    assert path.stat().st_size < 2_000
    assert verify(path) == []


async def test_a_flood_of_strangers_does_not_fill_the_disk(tmp_path: Path) -> None:
    """Past sixty a minute refusals are counted, and the next line says how many."""
    clock = ManualClock()
    log = AuditLog(tmp_path, clock)
    path = tmp_path / "audit.jsonl"

    async def refused() -> None:
        await log.record(
            who="anonymous", verb="apply", subject="x", result="Unauthenticated", anonymous=True
        )

    for _ in range(100):
        await refused()
    assert len(path.read_bytes().splitlines()) == 60

    await log.record(who="ann", verb="apply", subject="x", result="ok")
    assert b"ok (40 refusals before this are not written)" in path.read_bytes().splitlines()[-1]

    clock.advance(61)
    await refused()
    assert len(path.read_bytes().splitlines()) == 62
    assert verify(path) == []
