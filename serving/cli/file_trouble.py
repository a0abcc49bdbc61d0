"""What went wrong with a file that somebody named on the command line, in words."""

import os

__all__ = ["file_trouble"]


def file_trouble(error: Exception) -> str:
    """The file and the system's word for it; of other errors their own text."""
    if isinstance(error, OSError):
        return f"{error.filename or 'the file'}: {os.strerror(error.errno or 0)}"
    return str(error)
