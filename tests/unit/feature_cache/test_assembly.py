"""Many rows are made as one by one, whatever is wrong with some of them."""

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_cache import assembly
from feature_cache.cache import FeatureCache
from feature_cache.memory import MemoryStore
from feature_cache.plan import InputSpec
from feature_cache.views import FeatureView, Field

VIEWS = {
    name: FeatureView(
        view=name,
        entity={"id": "int64"},
        fields={f"{name}_{n}": Field(type="float32", default=-1.0) for n in range(3)},
        fresh_for="1h",
        keep_for="2h",
        on_stale=on_stale,
        on_missing=on_missing,
    )
    for name, on_stale, on_missing in (
        ("a", "serve", "default"), ("b", "default", "nan"), ("c", "reject", "reject"),
    )  # type: ignore[misc]
}  # fmt: skip
COLUMNS = tuple((view, field) for view in VIEWS for field in VIEWS[view].fields)
FATES = ("fresh", "stale", "gone", "missing", "null", "erased", "garbage", "short", "future")


async def _both(fates: list[str], *, order: bool) -> tuple[Any, Any]:
    store = MemoryStore(time.monotonic)
    cache = FeatureCache(store, VIEWS, timeout=5)
    now = time.time() * 1e3
    ago = {"stale": 4e6, "gone": 7.1e6, "future": -6e4}
    for view, declared in VIEWS.items():
        for at, fate in enumerate(fates):
            if fate == "missing":
                continue
            field = f"{view}_1"
            await cache.write(
                view,
                {"id": [at]},
                {name: [at] for name in declared.fields},
                np.array([int(now - ago.get(fate, 0))]),
                {field: np.array([fate == "null"])},
            )
            [key] = [key for key in store._rows if f"id={at}}}:{view}".encode() in key]
            if fate == "garbage":
                await store.erase([key], b"\xfc\x00nobody" + bytes(8), 60_000)
                store._rows[key] = (b"\xfc\x00nobody" + store._rows[key][0][8:16], 1e18)
            elif fate == "short":
                store._rows[key] = (store._rows[key][0][:-4], 1e18)
    erased = [at for at, fate in enumerate(fates) if fate == "erased"]
    for at in erased:
        await cache.erase({"id": at})
    columns = COLUMNS[::-1] if order else COLUMNS
    plan = cache.compile({"X": InputSpec(columns, np.dtype("<f4"))})
    reading = await cache.read(plan, {"id": list(range(len(fates)))}, {}, 1e18)
    many = cache.assemble(plan, reading, {})
    ones = []
    usual, assembly._MANY = assembly._MANY, 1 << 30  # type: ignore[misc]
    try:
        ones = cache.assemble(plan, reading, {})
    finally:
        assembly._MANY = usual  # type: ignore[misc]
    await cache.close()
    return many, ones


@settings(deadline=None, max_examples=30)
@given(fates=st.lists(st.sampled_from(FATES), min_size=8, max_size=20), order=st.booleans())
async def test_many_rows_are_made_as_one_by_one(fates: list[str], order: bool) -> None:
    """Values, bits, ages, the refusal and what is unknown."""
    many, ones = await _both(fates, order=order)

    np.testing.assert_array_equal(many.values["X"], ones.values["X"])
    assert many.bits == ones.bits
    assert many.ages == ones.ages
    assert (many.refusal, many.unknown) == (ones.refusal, ones.unknown)


async def test_a_thousand_good_rows_are_no_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of them is looked at by itself."""
    monkeypatch.setattr(assembly.Assembler, "view_row", lambda *_: pytest.fail("a row by itself"))

    store = MemoryStore(time.monotonic)
    cache = FeatureCache(store, VIEWS, timeout=5)
    ids = list(range(1000))
    now = np.full(1000, int(time.time() * 1e3))
    for view, declared in VIEWS.items():
        await cache.write(view, {"id": ids}, dict.fromkeys(declared.fields, ids), now)
    plan = cache.compile({"X": InputSpec(COLUMNS, np.dtype("<f4"))})
    batch = await cache.fetch(plan, {"id": ids})

    assert batch.values["X"].tolist() == [[at] * 9 for at in ids]
    await cache.close()


async def test_what_was_made_of_kept_rows_is_made_again_when_one_goes_stale() -> None:
    """The memory of an assembled row ends with its freshness, its rows and its bound."""
    now = [time.time()]
    store = MemoryStore(time.monotonic)
    cache = FeatureCache(store, VIEWS, timeout=5, wall=lambda: now[0])
    plan = cache.compile({"X": InputSpec(COLUMNS[:6], np.dtype("<f4"))})
    for view in ("a", "b"):
        names = VIEWS[view].fields
        await cache.write(view, {"id": [1]}, {n: [5] for n in names}, np.array([int(now[0] * 1e3)]))
    fresh = [await cache.fetch(plan, {"id": [1]}) for _ in range(3)]
    assert [one.values["X"].tolist() for one in fresh] == [[[5] * 6]] * 3
    assert fresh[1].values["X"] is fresh[2].values["X"]
    assert not fresh[2].values["X"].flags.writeable

    now[0] += 3601
    stale = await cache.fetch(plan, {"id": [1]})
    assert stale.values["X"][0, :3].tolist() == [5, 5, 5]
    assert np.isnan(stale.values["X"][0, 3:]).all()
    now[0] -= 3601
    assert (await cache.fetch(plan, {"id": [1]})).values["X"].tolist() == [[5] * 6]

    later = {"id": [1]}, {n: [6] for n in VIEWS["b"].fields}, np.array([int(now[0] * 1e3) + 1])
    await cache.write("b", *later)
    assert (await cache.fetch(plan, {"id": [1]})).values["X"].tolist() == [[5] * 3 + [6] * 3]
    await cache.close()


KINDS = ("float32", "int32", "int16", "int8", "bool")
MIXED = [
    FeatureView(
        view=name,
        entity={"id": "int64"},
        fields={f"{name}_{kind}": Field(type=kind, default=0) for kind in KINDS},  # type: ignore[arg-type]
    )
    for name in ("m", "n")
]


@settings(deadline=None, max_examples=60)
@given(
    numbers=st.lists(st.integers(-128, 127), min_size=10, max_size=10),
    wide=st.integers(-(1 << 31), (1 << 31) - 1),
    real=st.floats(width=32, allow_nan=False),
    chosen=st.lists(st.sampled_from([(v.view, f) for v in MIXED for f in v.fields]), unique=True),
    kind=st.sampled_from(["<f4", "<f8"]),
)
async def test_rows_of_mixed_types_are_taken_apart_as_field_by_field(
    numbers: list[int], wide: int, real: float, chosen: list[tuple[str, str]], kind: str
) -> None:
    """One unpack for all views gives the very numbers that reading each field would."""
    if not chosen:
        return
    cache = FeatureCache(MemoryStore(time.monotonic), {v.view: v for v in MIXED}, timeout=5)
    values = iter(numbers)
    for view in MIXED:
        columns: dict[str, list[Any]] = {name: [next(values)] for name in view.fields}
        columns[f"{view.view}_int32"] = [wide]
        columns[f"{view.view}_float32"] = [real]
        columns[f"{view.view}_bool"] = [bool(wide % 2)]
        await cache.write(view.view, {"id": [1]}, columns, np.array([int(time.time() * 1e3)]))
    plan = cache.compile({"X": InputSpec(tuple(chosen), np.dtype(kind))})
    reading = await cache.read(plan, {"id": [1]}, {}, 1e18)
    assert reading.found.whole == 0

    quick = assembly._taken(plan, reading)
    reading.found.whole = -1
    slow = cache.assemble(plan, reading, {})

    # Fields of two views in turn stand in no order that one part of each could have.
    assert (quick is not None) == plan.side_by_side
    if quick is not None:
        assert quick.fine
        assert quick.values["X"].dtype == slow.values["X"].dtype
        np.testing.assert_array_equal(quick.values["X"], slow.values["X"])
        assert (quick.bits, quick.ages) == (slow.bits, slow.ages)
        assert quick.oldest == max(max(ages) for ages in slow.ages)
    await cache.close()
