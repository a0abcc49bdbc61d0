"""What a request that was not answered says of the version that it was drawn for.

    InferenceFailed, ModelNotReady, anything unexpected   an error of its arm
    Overloaded                                            an error: the version's queue was full
    DeadlineExceeded, Overloaded for lack of time         an error, unless the caller gave less
                                                          time than the model allows
    FeaturesUnavailable                                   not the version's doing
    InvalidRequest, NotFound, credentials                 the caller's doing
    ClientDisconnected, a cancelled task                  nobody knows how it would have ended

What is no error is left out of both arms and counted by reason. The first that fits wins.
"""

from typing import Final

import msgspec

from serving.errors import (
    ClientDisconnected,
    DeadlineExceeded,
    FeaturesUnavailable,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    Overloaded,
    PermissionDenied,
    Unauthenticated,
)

__all__ = ["CLIENT_DEADLINE", "CLIENT_GONE", "ERROR", "Fault", "fault_of"]


class Fault(msgspec.Struct, frozen=True):
    """Why a request was not answered.

    `reason` says why it does not count; empty: it is an error.
    """

    reason: str = ""
    unwell: bool = False
    """A feature was not to be had."""

    @property
    def counts(self) -> bool:
        """Whether it is an error of its arm."""
        return not self.reason


ERROR: Final = Fault()
CLIENT_DEADLINE: Final = Fault("client_deadline")
CLIENT_GONE: Final = Fault("client_gone")
_FEATURES: Final = Fault("features_unavailable", unwell=True)
_BAD_REQUEST: Final = Fault("bad_request")
_EXCLUDED: Final[tuple[tuple[type[BaseException], Fault], ...]] = (
    (ClientDisconnected, CLIENT_GONE),
    (FeaturesUnavailable, _FEATURES),
    (InvalidRequest, _BAD_REQUEST),
    (NotFound, _BAD_REQUEST),
    (MethodNotAllowed, _BAD_REQUEST),
    (Unauthenticated, Fault("unauthenticated")),
    (PermissionDenied, Fault("permission_denied")),
)


def fault_of(error: BaseException, *, hurried: bool) -> Fault:
    """Whose doing it was.

    Args:
        error: what ended the request.
        hurried: the caller gave it less time than the model allows.
    """
    if not isinstance(error, Exception):  # its task was cancelled: the caller left
        return CLIENT_GONE
    late = isinstance(error, DeadlineExceeded) or (
        isinstance(error, Overloaded) and error.reason == "deadline"
    )
    if late and hurried:
        return CLIENT_DEADLINE
    return next((fault for kind, fault in _EXCLUDED if isinstance(error, kind)), ERROR)
