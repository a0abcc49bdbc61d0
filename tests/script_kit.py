"""The modules of loadtests/, which lie beside the package and are not installed."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

LOADTESTS = Path(__file__).parents[1] / "loadtests"


def module(name: str) -> ModuleType:
    """A module of loadtests/, whose modules find each other by that folder on the path."""
    sys.path.insert(0, str(LOADTESTS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(LOADTESTS))
