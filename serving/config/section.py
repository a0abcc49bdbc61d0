"""What every part of the schema is made of."""

from typing import Annotated

import msgspec
from msgspec import Meta

__all__ = ["Name", "Percent", "Section", "Sha256", "Share"]

Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Percent = Annotated[float, Meta(ge=0, le=100)]
Share = Annotated[float, Meta(ge=0, le=1)]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A mapping in YAML. Unknown keys are errors."""
