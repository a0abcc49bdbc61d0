"""A record's fields and their places in the tuple that stands for it."""

import pytest

from serving.recording import record


@pytest.mark.parametrize("place", range(len(record.PredictionRecord.__struct_fields__)))
def test_every_place_has_its_fields_name(place: int) -> None:
    """A field that is put in between would otherwise be read as its neighbour."""
    name = record.PredictionRecord.__struct_fields__[place]

    assert getattr(record, name.upper()) == place
