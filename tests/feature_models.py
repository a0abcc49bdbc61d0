"""A model with three views: ours by two keys and by one, and Feast's."""

from pathlib import Path
from typing import Any

import gateway_kit
import onnx_models
import yaml

VISIT: dict[str, Any] = {
    "view": "visit",
    "entity": {"shop": "int32", "name": "string"},
    "fields": {"spent": {"type": "float32", "default": -1}},
}
SHOP: dict[str, Any] = {
    "view": "shop",
    "entity": {"shop": "int32"},
    "fields": {"size": {"type": "int32", "default": -2}},
}
DRIVER: dict[str, Any] = {
    "view": "driver",
    "entity": {"shop": "int32"},
    "fields": {"conv": {"type": "float32", "default": -3}},
    "source": "feast",
    "feast": {"project": "demo", "feature_view": "Drivers"},
    "keep_for": "36500d",
    "fresh_for": "36500d",
}


def configure(folder: Path) -> None:
    """A model of three features under two keys."""
    gateway_kit.write_model(
        folder, "m", {"v1": onnx_models.doubler(3)}, {"assignment": {"key": "shop"}},
        entity={"shop": "INT32", "name": "BYTES"},
        inputs={"X": {"features": ["visit.*", "shop.*", "driver.*"]}},
    )  # fmt: skip
    (folder / "features").mkdir()
    for view in (VISIT, SHOP, DRIVER):
        (folder / "features" / f"{view['view']}.yaml").write_text(yaml.safe_dump(view))
    (folder / "visits.csv").write_text('shop,name,spent\n7,zoë,1.5\n-7,"a,b",2.5\n7,"a,b",3.5\n')
    (folder / "shops.csv").write_text("shop,size\n7,70\n-7,-70\n")


# Without the near cache: what is `CACHED` would depend on which test ran before.
FEATURES = {"timeout": "2s", "near_cache": "0B"}
