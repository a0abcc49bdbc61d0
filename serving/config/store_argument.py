"""How a process that an engine starts hears where the store is."""

import argparse
import os

from serving.config.keys import STORE_VARIABLE

__all__ = ["add_store_argument"]


def add_store_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--store`; left out, the environment says it.

    It is taken out of the environment, so that no process of ours inherits a password by accident.
    """
    store = os.environ.pop(STORE_VARIABLE, None)
    parser.add_argument(
        "--store",
        default=store,
        required=store is None,
        help=f"redis://, rediss:// or unix:// address [default: ${STORE_VARIABLE}]",
    )
