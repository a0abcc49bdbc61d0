"""Spans of time in words."""

__all__ = ["age"]


def age(seconds: float) -> str:
    """A span in its two largest units: `2 d 3 h`, `5 min`, `12 s`."""
    left = max(0, int(seconds))
    words = []
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        number, left = divmod(left, size)
        if number:
            words.append(f"{number} {unit}")
    return " ".join(words[:2]) or "0 s"
