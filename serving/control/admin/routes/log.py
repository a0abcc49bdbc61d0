"""Erasures: noted for the audit, and labels, which control writes, erased."""

import re
from typing import Final

from starlette.responses import Response

from serving.control.admin import answers, questions
from serving.control.admin.operations import Ask, Operation, json_response
from serving.control.plane import ControlPlane
from serving.errors import InvalidRequest
from serving.recording.erasing_labels import LabelsErased

__all__ = ["LogRoutes"]

_RECEIPT: Final = re.compile(r"\d{8}T\d{6}-[0-9a-f]{8}\Z")
_SHA256: Final = re.compile(r"[0-9a-f]{64}\Z")


class LogRoutes:
    """Endpoints under `/api/v1/log`, and one of labels."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    def operations(self) -> list[Operation]:
        """What is routed."""
        return [
            Operation(
                method="POST",
                path="/api/v1/log/erasures/{receipt}/{sha256}",
                need="admin",
                summary="Note in the audit log that `sluice log erase` left this receipt.",
                answer=self._note,
                returns=answers.ErasureNoted,
                audited=True,
                verb="log.erase",
            ),
            Operation(
                method="POST",
                path="/api/v1/labels/erasures/{receipt}",
                need="admin",
                summary="Erase the labels of a subject, for `sluice log erase`.",
                answer=self._erase_labels,
                body=questions.LabelErasure,
                returns=LabelsErased,
                audited=True,
                verb="labels.erase",
            ),
        ]

    async def _erase_labels(self, ask: Ask) -> Response:
        if not _RECEIPT.match(ask.path["receipt"]):
            raise InvalidRequest("this is not a receipt's name")
        wanted: questions.LabelErasure = ask.body
        return json_response(
            await self._plane.labels.erase(wanted.keys, wanted.predictions, wanted.models)
        )

    async def _note(self, ask: Ask) -> Response:
        receipt, sha256 = ask.path["receipt"], ask.path["sha256"]
        if not (_RECEIPT.match(receipt) and _SHA256.match(sha256)):
            raise InvalidRequest("this is not a receipt's name and the SHA-256 of its line")
        return json_response(answers.ErasureNoted(receipt=receipt, sha256=sha256))
