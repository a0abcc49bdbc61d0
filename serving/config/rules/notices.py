"""Rules for `rollout.notify`: somebody can be told, and only where it is meant."""

from collections.abc import Iterator
from pathlib import PurePosixPath

from serving.config.destinations import address_refusal, host_refusal, parse_destination
from serving.config.facts import Facts, SecretFact
from serving.config.load import Loaded
from serving.config.problems import Path, Problem, Severity
from serving.config.schema import NotifyConfig, RolloutConfig

__all__ = ["check_notices"]


def check_notices(
    loaded: Loaded, facts: Facts, model: str, rollout: RolloutConfig
) -> Iterator[Problem]:
    """Judge who hears of a model's rollout."""
    for position, notice in enumerate(rollout.notify):
        fact = facts.notices.get((model, position), SecretFact())
        yield from _Notice(loaded, model, position, notice, fact).problems()


class _Notice:
    def __init__(
        self, loaded: Loaded, model: str, position: int, notice: NotifyConfig, fact: SecretFact
    ) -> None:
        self._sources = loaded.sources
        self._file = loaded.model_files[model]
        self._reach = loaded.configuration.gateway.notify
        self._where: Path = ("rollout", "notify", position)
        self._notice = notice
        self._fact = fact

    def _problem(
        self, option: str, message: str, suggestion: str = "", severity: Severity = "error"
    ) -> Problem:
        path = (*self._where, option) if option else self._where
        return self._sources.problem(self._file, path, message, suggestion, severity)

    def problems(self) -> Iterator[Problem]:
        """Everything that is wrong with one entry."""
        notice = self._notice
        if notice.webhook and notice.file:
            message = "it names a webhook and a file: one entry is for one of them"
            yield self._problem("file", message, "write a second entry")
        elif not (notice.webhook or notice.file):
            yield self._problem(
                "", "nobody is told: it names no destination", "set webhook or file"
            )
        if notice.webhook:
            yield from self._address(notice.webhook)
        if notice.file:
            yield from self._path(notice.file)
        yield from self._secret()

    def _address(self, url: str) -> Iterator[Problem]:
        try:
            where = parse_destination(url)
        except ValueError as error:
            yield self._problem("webhook", str(error))
            return
        host = "127.0.0.1" if where.host == "localhost" else where.host
        private = self._reach.private
        refusal = host_refusal(where.host, self._reach.hosts) or address_refusal(
            host, loopback=private, private=private
        )
        if refusal:
            yield self._problem("webhook", f"`{where.host}` {refusal}")
        if not self._notice.secret_file:
            message = "without `secret_file` events are not signed: anybody could send one"
            yield self._problem("webhook", message, severity="warning")

    def _path(self, file: str) -> Iterator[Problem]:
        path = PurePosixPath(file)
        if path.is_absolute() or ".." in path.parts or "\0" in file:
            message = "it leaves the data directory"
            yield self._problem("file", message, "name a file under it, such as rollouts.jsonl")
        elif not path.parts or file.endswith("/"):
            yield self._problem("file", "this names no file", "such as rollouts.jsonl")

    def _secret(self) -> Iterator[Problem]:
        name = self._notice.secret_file
        if self._fact.refusal:
            yield self._problem("secret_file", f"`{name}`: {self._fact.refusal}")
        elif self._fact.mode & 0o077:
            message = f"others may read the secret (mode {self._fact.mode:04o})"
            yield self._problem("secret_file", message, "chmod 600", "warning")
        if name and not self._notice.webhook:
            message = "lines in a file are not signed"
            yield self._problem("secret_file", message, "leave it out", "warning")
