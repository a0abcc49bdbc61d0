"""What can go wrong with the store, named by what happened.

Data problems are no errors: a missing, stale or unreadable value is a `Status`.
"""

__all__ = ["InvalidAddress", "ReadOnly", "StoreRefused", "Unavailable"]


class InvalidAddress(ValueError):
    """A store address that cannot be used. The message never holds its password."""


class ReadOnly(Exception):
    """The view is written by somebody else."""


class Unavailable(Exception):
    """The store cannot be asked now: not connected, silent, or too much is waiting."""


class StoreRefused(Exception):
    """The store answered a command with an error, such as `OOM` or `READONLY`.

    `code` is its first word.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = message.partition(" ")[0]
