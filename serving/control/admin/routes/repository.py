"""Triton's and KServe's repository calls, with the admin port's authority."""

from typing import Final

from starlette.responses import Response

from serving.control.admin import answers, overview, questions
from serving.control.admin.operations import Ask, Operation, json_response
from serving.control.plane import ControlPlane
from serving.errors import ModelNotReady, Unimplemented

__all__ = ["RepositoryRoutes"]

_WAIT_SECONDS: Final = 30.0


class RepositoryRoutes:
    """Endpoints under `/v2/repository`."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    def operations(self) -> list[Operation]:
        """What is routed."""
        return [
            Operation(
                method="POST",
                path="/v2/repository/index",
                need="read",
                summary="Every version and its state over all workers.",
                answer=self._index,
                body=questions.RepositoryRequest,
                returns=list[answers.RepositoryVersion],
            ),
            Operation(
                method="POST",
                path="/v2/repository/models/{model}/load",
                need="admin",
                summary="Load a model that was unloaded.",
                answer=self._load,
                body=questions.RepositoryRequest,
                returns=answers.LoadAnswer,
                audited=True,
                verb="load",
            ),
            Operation(
                method="POST",
                path="/v2/repository/models/{model}/unload",
                need="admin",
                summary="Unload a model; it stays configured and answers that it is not ready.",
                answer=self._unload,
                body=questions.RepositoryRequest,
                returns=answers.UnloadAnswer,
                audited=True,
                verb="unload",
            ),
        ]

    async def _index(self, ask: Ask) -> Response:
        request: questions.RepositoryRequest = ask.body
        current = self._plane.publisher.current
        if current is None:
            return json_response([])
        reports = await self._plane.workers()
        entries = overview.repository_index(current, reports, self._plane.clock.wall())
        return json_response(
            [
                answers.RepositoryVersion(
                    name=one.name, version=one.version, state=one.state, reason=one.reason
                )
                for one in entries
                if one.state == "READY" or not request.ready
            ]
        )

    async def _load(self, ask: Ask) -> Response:
        request: questions.RepositoryRequest = ask.body
        # Uploading files and configuration through this call was a path traversal in Triton.
        if any(name == "config" or name.startswith("file:") for name in request.parameters):
            raise Unimplemented(
                "the parameters `config` and `file:…` are not offered; "
                "edit the configuration directory and apply it"
            )
        model = ask.path["model"]
        await self._set_loaded(ask, loaded=True)
        return json_response(answers.LoadAnswer(name=model))

    async def _unload(self, ask: Ask) -> Response:
        await self._set_loaded(ask, loaded=False)
        return json_response(answers.UnloadAnswer(name=ask.path["model"]))

    async def _set_loaded(self, ask: Ask, *, loaded: bool) -> None:
        model = ask.path["model"]
        outcome = await self._plane.publisher.set_loaded(model, loaded=loaded, author=ask.who.name)
        for answer in await self._plane.until_settled(outcome.revision, _WAIT_SECONDS):
            if answer.refused:
                verb = "load" if loaded else "unload"
                raise ModelNotReady(
                    f"failed to {verb} '{model}' on {answer.worker}: {answer.refused}"
                )
