"""Rules for `gateway.yaml` and the token file."""

from collections.abc import Iterator
from functools import partial
from itertools import combinations
from typing import Final

from feature_cache.address import Address as StoreAddress
from feature_cache.errors import InvalidAddress
from serving.config.addresses import Address, listener_parts, parse_address
from serving.config.facts import Facts, TokensFact
from serving.config.problems import Problem, Sources
from serving.config.schema import GatewayConfig, TlsConfig, WorkersConfig
from serving.config.units import Seconds

__all__ = ["check_gateway"]

FILE: Final = "gateway.yaml"
LISTENERS: Final = ("http", "grpc", "admin")


def check_gateway(
    gateway: GatewayConfig, sources: Sources, facts: Facts, *, insecure: bool = False
) -> list[Problem]:
    """Judge `gateway.yaml` and the files it names.

    `insecure`: the start was forced by name, so an unprotected listener beyond loopback is a
    warning and no error.
    """
    rules = _Gateway(gateway, sources, facts, insecure)
    return [
        *rules.listeners(),
        *rules.tls(),
        *rules.engine(),
        *rules.limits(),
        *rules.features(),
        *rules.tokens(),
    ]


class _Gateway:
    def __init__(
        self, gateway: GatewayConfig, sources: Sources, facts: Facts, insecure: bool
    ) -> None:
        self._gateway = gateway
        self._problem = partial(sources.problem, FILE)
        self._facts = facts
        self._insecure = insecure

    def listeners(self) -> Iterator[Problem]:
        """Addresses parse, do not collide, and are protected where others can reach them."""
        parsed: dict[str, Address] = {}
        for name in LISTENERS:
            text, tls = listener_parts(getattr(self._gateway.listen, name))
            try:
                parsed[name] = parse_address(text)
            except ValueError as error:
                yield self._problem(("listen", name), str(error))
            else:
                yield from self._exposure(name, parsed[name], tls)
        for first, second in combinations(parsed, 2):
            if parsed[first].overlaps(parsed[second]):
                message = f"the same port as listen.{first}"
                yield self._problem(("listen", second), message, "give each listener its own")

    def _exposure(self, name: str, address: Address, tls: TlsConfig | None) -> Iterator[Problem]:
        if address.is_loopback:
            return
        identified = self._gateway.auth is not None or (tls is not None and tls.client_ca)
        lacking = [] if tls is not None else ["is not encrypted (`tls`)"]
        lacking += [] if identified else ["lets everybody in (`auth.tokens` or `tls.client_ca`)"]
        if lacking:
            yield self._problem(
                ("listen", name),
                f"reachable from other machines, this listener {' and '.join(lacking)}",
                "bind 127.0.0.1, add what is missing, or force it with `--insecure-bind`",
                "warning" if self._insecure else "error",
            )

    def tls(self) -> Iterator[Problem]:
        """Certificates and keys can be used, and nobody else reads the keys."""
        for name, fact in self._facts.tls.items():
            for option, refusal in fact.refusals.items():
                hint = "paths start at the configuration directory" if "no such" in refusal else ""
                yield self._problem(("listen", name, "tls", option), refusal, hint)
            if fact.key_mode & 0o007:
                message = f"every user of this machine may read the key (mode {fact.key_mode:04o})"
                yield self._problem(("listen", name, "tls", "key"), message, "chmod 600")
            elif fact.key_mode & 0o070:
                message = f"a whole group may read the key (mode {fact.key_mode:04o})"
                yield self._problem(("listen", name, "tls", "key"), message, "chmod 600", "warning")

    def engine(self) -> Iterator[Problem]:
        """The engine exists and can run that many workers."""
        engine = self._gateway.engine
        if engine.address is not None and engine.kind != "ray":
            message = f"the engine `{engine.kind}` joins no cluster"
            yield self._problem(("engine", "address"), message, "use `kind: ray`")
        workers = engine.workers
        if isinstance(workers, WorkersConfig):
            if workers.min > workers.max:
                message = f"min is {workers.min}, more than max, which is {workers.max}"
                # `max` is 1 unless written down, so the line to mend may be either.
                yield self._problem(("engine", "workers", "min"), message, "raise max")
            elif workers.max > workers.min and engine.kind == "local":
                message = f"the engine `local` does not scale; it runs min, {workers.min}"
                yield self._problem(("engine", "workers", "max"), message, severity="warning")

    def limits(self) -> Iterator[Problem]:
        """Bounds leave room for something."""
        limits = self._gateway.limits
        for name in limits.__struct_fields__:
            if getattr(limits, name) <= 0:
                yield self._problem(("limits", name), "must be more than nothing")
        if limits.default_deadline > limits.max_deadline:
            message = f"longer than limits.max_deadline, {Seconds(limits.max_deadline)}"
            yield self._problem(("limits", "default_deadline"), message)

    def features(self) -> Iterator[Problem]:
        """The feature store's address can be used, and waiting for it is bounded."""
        features = self._gateway.features
        if features.store is not None:
            try:
                StoreAddress.parse(features.store)
            except InvalidAddress as error:
                yield self._problem(("features", "store"), str(error))
        for name in ("timeout", "max_local_age"):
            if getattr(features, name) <= 0:
                yield self._problem(("features", name), "must be more than nothing")

    def tokens(self) -> Iterator[Problem]:
        """The token file can be used, and names nobody twice."""
        fact, auth = self._facts.tokens, self._gateway.auth
        if fact is None or auth is None:
            return
        if fact.problems:
            yield self._problem(
                ("auth", "tokens"), "this file cannot be used; see its own mistakes"
            )
            for problem in fact.problems:
                yield _renamed(problem, auth.tokens)
        if fact.mode & 0o077:
            message = f"others may read the token file (mode {fact.mode:04o})"
            yield self._problem(("auth", "tokens"), message, "chmod 600", "warning")
        yield from _duplicates(fact, auth.tokens)


def _duplicates(fact: TokensFact, file: str) -> Iterator[Problem]:
    names: dict[str, int] = {}
    digests: dict[str, int] = {}
    for position, entry in enumerate(fact.tokens.tokens if fact.tokens else []):
        path = f"tokens[{position}]"
        if (first := names.setdefault(entry.name, position)) != position:
            message = f"`{entry.name}` is also the name of tokens[{first}]"
            yield Problem(file=file, path=f"{path}.name", message=message)
        if (first := digests.setdefault(entry.sha256, position)) != position:
            message = f"the same token as tokens[{first}]"
            yield Problem(
                file=file,
                path=f"{path}.sha256",
                message=message,
                suggestion="make another with `sluice tokens new`",
            )


def _renamed(problem: Problem, file: str) -> Problem:
    """The same problem under the name the configuration gives the file."""
    return Problem(
        file=file,
        line=problem.line,
        column=problem.column,
        path=problem.path,
        message=problem.message,
        suggestion=problem.suggestion,
    )
