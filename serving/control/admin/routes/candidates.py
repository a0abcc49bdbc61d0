"""What comes out of a training, brought by a pipeline instead of a person."""

import asyncio
from pathlib import Path

from starlette.responses import Response

from serving.control.admin import answers, questions
from serving.control.admin.operations import Ask, Operation, json_response
from serving.control.plane import ControlPlane
from serving.errors import InvalidArtifact, InvalidRequest
from serving.models.candidate import Brought, bring

__all__ = ["CandidateRoutes"]


class CandidateRoutes:
    """`POST /api/v1/candidates/{model}`: the same as `sluice candidate`, one at a time."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._one_at_a_time = asyncio.Lock()

    def operations(self) -> list[Operation]:
        """What is routed."""
        return [
            Operation(
                method="POST",
                path="/api/v1/candidates/{model}",
                need="admin",
                summary="Check a trained model file and add it to the configuration as a shadow.",
                answer=self._bring,
                body=questions.CandidateRequest,
                returns=answers.CandidateAnswer,
                audited=True,
                verb="candidate",
            ),
        ]

    async def _bring(self, ask: Ask) -> Response:
        request: questions.CandidateRequest = ask.body
        model, publisher = ask.path["model"], self._plane.publisher
        publisher.expect(None)
        for name, text in (("file", request.file), ("golden", request.golden)):
            if text and ("\0" in text or not Path(text).is_absolute()):
                raise InvalidRequest(f"`{name}` must be an absolute path on the gateway's machine")
        if not 0 < request.percent <= 100:
            raise InvalidRequest("`percent` must be more than 0 and at most 100")
        async with self._one_at_a_time:
            directory = await asyncio.to_thread(publisher.configured_in)
            brought = await asyncio.to_thread(self._brought, directory, model, request)
            if not request.apply:
                return json_response(
                    answers.CandidateAnswer(
                        candidate=brought, revision=publisher.revision, published=False
                    )
                )
            outcome = await publisher.apply(
                directory, author=ask.who.name, reason=f"{model}/{brought.version} is a candidate"
            )
        return json_response(
            answers.CandidateAnswer(
                candidate=brought,
                revision=outcome.revision,
                published=outcome.published,
                workers=await self._plane.until_settled(outcome.revision, request.wait_seconds),
            )
        )

    def _brought(self, directory: Path, model: str, request: questions.CandidateRequest) -> Brought:
        try:
            return bring(
                directory,
                model,
                Path(request.file),
                version=request.version,
                checked=self._plane.data / "checked",
                golden=Path(request.golden) if request.golden else None,
                percent=request.percent,
            )
        except InvalidArtifact as error:
            raise InvalidRequest(f"the file must not be served: {error.message}") from error
