"""What upstreams that run no session here refuse by themselves, in the words of one that does."""

from collections.abc import Iterable

from serving.errors import DeadlineExceeded, InvalidRequest
from serving.models.batch import Feed
from serving.types import Signature

__all__ = ["Terms"]


class Terms:
    """On which a version takes requests.

    Args:
        signature: what it takes.
        name: of the version, for messages.
        max_rows: `serve.max_batch_size`.
    """

    def __init__(self, signature: Signature, name: str, max_rows: int) -> None:
        self._batchable = signature.batchable
        self._texts = [one.name for one in signature.inputs if one.datatype == "BYTES"]
        self._name = name
        self._max_rows = max_rows

    def insist(self, feed: Feed, rows: int, seconds: float) -> None:
        """Refuse a request that could not be answered.

        Args:
            feed: every input by name.
            rows: of this request.
            seconds: left until its deadline.

        Raises:
            InvalidRequest: too many rows, none, or BYTES that are not UTF-8.
            DeadlineExceeded: the deadline has passed.
        """
        if self._batchable and not 0 < rows <= self._max_rows:
            raise InvalidRequest(
                f"the request has {rows} rows; {self._name} takes 1 to {self._max_rows} "
                "(serve.max_batch_size)"
            )
        if seconds <= 0:
            raise DeadlineExceeded("the deadline had passed before inference")
        for name in self._texts:
            _insist_on_text(name, feed[name].flat)


def _insist_on_text(name: str, elements: Iterable[object]) -> None:
    for i, element in enumerate(elements):
        try:
            if isinstance(element, bytes):
                element.decode()
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"input '{name}': element {i} is not valid UTF-8") from error
