"""What came true of one prediction, as it is sent, checked and kept."""

import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any, Final

import msgspec

__all__ = ["EARLY_SECONDS", "ENTITY_SEPARATOR", "Label", "Taken", "Unfit", "check", "entity_text"]

EARLY_SECONDS: Final = 5.0
"""How far two machines' clocks may be apart."""

ENTITY_SEPARATOR: Final = "\x1f"
"""Between the keys of an entity that has several; no key may hold it."""

_FIELDS: Final = (
    "prediction_id", "row", "model", "entity", "time", "tolerance", "label", "label_time", "source",
)  # fmt: skip
_LONGEST_TEXT: Final = 256
_MAX_ROW: Final = (1 << 31) - 1
_MAX_WHOLE: Final = 1 << 53
_LONGEST_TOLERANCE: Final = 3660 * 86400.0


class Label(msgspec.Struct, frozen=True, array_like=True):
    """One label. Times are microseconds since 1970.

    It is of a row of a prediction, by `prediction_id` and `row`; or of the newest prediction of
    an `entity` that was made at `time` or at most `tolerance` seconds before. The value is
    `number`, or, where that is None, `text`.
    """

    model: str
    prediction_id: str
    row: int
    entity: str
    time: int
    tolerance: float
    number: float | None
    text: str
    label_time: int
    source: str

    @property
    def key(self) -> tuple[str, str, int, str, int]:
        """What it is a label of: a later one with this key corrects it."""
        return self.model, self.prediction_id, self.row, self.entity, self.time

    @property
    def value(self) -> float | str:
        """What came true."""
        return self.text if self.number is None else self.number


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What labels of one model may be.

    `task` is empty where nothing is said about it. `classes` gives class names their number.
    `entity` is the keys that the model is asked with and the log has, `INT64`, `INT32` or `BYTES`;
    `hidden` those of them that the log keeps a digest of, and what makes it. `horizon` is in
    seconds.
    """

    task: str = ""
    classes: Mapping[str, int] = {}
    entity: Mapping[str, str] = {}
    hidden: Mapping[str, Callable[[Any], str]] = {}
    horizon: float


class Unfit(ValueError):
    """An item is no label. The message says why, and what it should be."""


def check(
    item: Any, models: Mapping[str, Taken], now: int, *, model: str = "", source: str = ""
) -> Label:
    """Make a label of what was sent.

    Args:
        item: decoded JSON.
        models: those that are configured.
        now: microseconds since 1970.
        model: whose label it is, where neither it nor its prediction_id says so.
        source: where it comes from, where it does not say so.

    Raises:
        Unfit: it is none.
    """
    if not isinstance(item, dict):
        raise Unfit("a label is an object of names and values")
    for name in item.keys() - set(_FIELDS):
        near = get_close_matches(str(name), _FIELDS, n=1)
        meant = f"; did you mean `{near[0]}`?" if near else ""
        raise Unfit(f"there is no `{str(name)[:64]}` in a label{meant}")
    prediction_id = _text(item, "prediction_id")
    if bool(prediction_id) == ("entity" in item):
        raise Unfit("a label needs either `prediction_id` or `entity` with `time`")
    stated = _text(item, "model")
    if prediction_id:
        made, of_model = _parsed(prediction_id)
        if stated and stated != of_model:
            raise Unfit(f"`model` is '{stated}', and the prediction is one of '{of_model}'")
        model = of_model
        if "time" in item or "tolerance" in item:
            raise Unfit("`time` and `tolerance` go with `entity`, not with `prediction_id`")
    else:
        model = stated or model
        made = None
    taken = models.get(model)
    if taken is None:
        known = ", ".join(sorted(models)) or "none"
        raise Unfit(f"there is no model '{model}'; there is {known}" if model else "no `model`")
    label_time = _moment(item, "label_time", now, now)
    if made is not None and label_time < made - EARLY_SECONDS * 1e6:
        early = (made - label_time) / 1e6
        raise Unfit(f"`label_time` is {early:,.0f} s before the prediction; are both clocks right?")
    number, text = _value(item, taken)
    return Label(
        model=model,
        prediction_id=prediction_id,
        row=_row(item, by_id=bool(prediction_id)),
        entity="" if prediction_id else _entity(item["entity"], taken),
        time=0 if prediction_id else _moment(item, "time", None, now),
        tolerance=0.0 if prediction_id else _tolerance(item, taken),
        number=number,
        text=text,
        label_time=label_time,
        source=_text(item, "source") or source[:_LONGEST_TEXT],
    )


def _parsed(prediction_id: str) -> tuple[int, str]:
    """When a prediction was made, microseconds, and by which model."""
    parts = prediction_id.split("~")
    try:
        [moment, tag, model, version, role] = parts
        made = int(moment, 16) * 1000
        whole = all((tag, model, version, role)) and 0 <= made < 1 << 62
    except ValueError:
        whole = False
    if not whole:
        raise Unfit(
            f"'{prediction_id[:64]}' is no prediction_id; answers carry it among their parameters"
        )
    return made, model


def _row(item: dict[str, Any], *, by_id: bool) -> int:
    row = item.get("row", 0)
    if isinstance(row, bool) or not isinstance(row, int) or not 0 <= row <= _MAX_ROW:
        raise Unfit("`row` is the number of the row in its request, from 0")
    if row and not by_id:
        raise Unfit("`row` goes with `prediction_id`, not with `entity`")
    return row


def _tolerance(item: dict[str, Any], taken: Taken) -> float:
    value = item.get("tolerance", taken.horizon)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Unfit("`tolerance` is a number of seconds")
    if not 0 < value <= _LONGEST_TOLERANCE:
        raise Unfit("`tolerance` is a number of seconds above 0 and below ten years")
    return float(value)


def _text(item: dict[str, Any], name: str) -> str:
    value = item.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
        raise Unfit(f"`{name}` is a text of at most {_LONGEST_TEXT} characters")
    _utf8(name, value)
    return value


def _utf8(name: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Unfit(f"`{name}` holds half of a surrogate pair, which is no character") from None


def _moment(item: dict[str, Any], name: str, default: int | None, now: int) -> int:
    """A time in microseconds since 1970: ISO 8601, or milliseconds; without a zone it is UTC."""
    value = item.get(name)
    if value is None:
        if default is None:
            raise Unfit(f"no `{name}`; it says which prediction of the entity is meant")
        return default
    moment: float
    if isinstance(value, str):
        try:
            parsed = datetime.fromisoformat(value.strip())
        except ValueError:
            raise Unfit(f"`{name}` is ISO 8601 or milliseconds since 1970") from None
        parsed = parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)
        moment = round(parsed.timestamp() * 1e6)
    elif isinstance(value, int) and not isinstance(value, bool):
        moment = value * 1000
    else:
        raise Unfit(f"`{name}` is ISO 8601 or milliseconds since 1970")
    if not 0 <= moment < 1 << 62:
        raise Unfit(f"`{name}` is before 1970 or beyond all time")
    if moment > now + EARLY_SECONDS * 1e6:
        raise Unfit(f"`{name}` is {(moment - now) / 1e6:,.0f} s in the future")
    return int(moment)


def _entity(value: Any, taken: Taken) -> str:
    if not isinstance(value, dict) or value.keys() != taken.entity.keys() or not value:
        keys = ", ".join(sorted(taken.entity)) or "none; use `prediction_id`"
        raise Unfit(f"`entity` is an object with the model's keys: {keys}")
    for name, kind in taken.entity.items():
        key = value[name]
        if kind == "BYTES":
            fits = isinstance(key, str) and len(key) <= _LONGEST_TEXT
            fits = fits and ENTITY_SEPARATOR not in key
        else:
            fits = isinstance(key, int) and not isinstance(key, bool) and -1 << 63 <= key < 1 << 63
        if not fits:
            raise Unfit(f"the key {name} is {kind}, and {str(key)[:64]!r} is none")
        if isinstance(key, str):
            _utf8(name, key)
    hidden = taken.hidden
    return entity_text(
        {name: hidden[name](key) if name in hidden else key for name, key in value.items()}
    )


def entity_text(entity: Mapping[str, object]) -> str:
    """Keys and values as one text, the same for the same entity: `shop=x`, by name."""
    return ENTITY_SEPARATOR.join(f"{name}={entity[name]}" for name in sorted(entity))


def _value(item: dict[str, Any], taken: Taken) -> tuple[float | None, str]:
    """The label as a number, or as a text where it is none."""
    value = item.get("label")
    if isinstance(value, str):
        if value in taken.classes:
            value = taken.classes[value]
        elif taken.task in ("binary", "regression"):
            raise Unfit(f"`label` is '{value[:64]}', and the model's task is {taken.task}")
        elif not value or len(value) > _LONGEST_TEXT:
            raise Unfit(f"`label` is a text of 1 to {_LONGEST_TEXT} characters")
        else:
            _utf8("label", value)
            return None, value
    if not isinstance(value, (bool, int, float)):
        raise Unfit("`label` is a number, a text, true or false" if value else "no `label`")
    if not -_MAX_WHOLE <= value <= _MAX_WHOLE and isinstance(value, int):
        raise Unfit("`label` is a whole number that is too large to be kept exactly")
    number = float(value)
    if not math.isfinite(number):
        raise Unfit("`label` is not finite")
    if taken.task == "binary" and number not in (0.0, 1.0):
        raise Unfit(f"`label` is {value}, and the model's task is binary: 0 or 1, true or false")
    if taken.task == "multiclass" and not number.is_integer():
        raise Unfit(f"`label` is {value}, and the model's task is multiclass: a whole number")
    return number, ""
