"""Rules for `monitoring.retrain`: somebody can be asked, on evidence that can come to be."""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from serving.config.destinations import address_refusal, host_refusal, parse_destination
from serving.config.facts import Facts, RetrainFact
from serving.config.load import Loaded
from serving.config.problems import Path, Problem, Severity
from serving.config.rules.loopback import admin_is_loopback
from serving.config.schema import MonitoringConfig, RetrainConfig

__all__ = ["check_retraining"]

_METRICS: Final[Mapping[str, tuple[str, ...]]] = {
    "binary": ("error", "brier", "log_loss"),
    "multiclass": ("error",),
    "regression": ("absolute_error", "squared_error"),
}
_OF_SCORES: Final = ("brier", "log_loss")
_AIRFLOW: Final = re.compile(r"/api/v2/dags/[^/]+/dagRuns\Z")


def check_retraining(loaded: Loaded, facts: Facts) -> list[Problem]:
    """Judge every model's `retrain`."""
    return [
        problem
        for name, config in loaded.configuration.models.items()
        if config.monitoring is not None and config.monitoring.retrain is not None
        for problem in _Retrain(
            loaded, facts, name, config.monitoring, config.monitoring.retrain
        ).problems()
    ]


class _Retrain:
    def __init__(
        self,
        loaded: Loaded,
        facts: Facts,
        name: str,
        monitoring: MonitoringConfig,
        retrain: RetrainConfig,
    ) -> None:
        self._sources = loaded.sources
        self._file = loaded.model_files[name]
        self._gateway = loaded.configuration.gateway
        self._monitoring = monitoring
        self._retrain = retrain
        self._fact = facts.retrains.get(name, RetrainFact())

    def _problem(
        self, option: str, message: str, suggestion: str = "", severity: Severity = "error"
    ) -> Problem:
        path: Path = ("monitoring", "retrain", option) if option else ("monitoring", "retrain")
        return self._sources.problem(self._file, path, message, suggestion, severity)

    def problems(self) -> Iterator[Problem]:
        yield from self._evidence()
        yield from self._destination()
        for option in ("webhook", "airflow"):
            if url := getattr(self._retrain, option):
                yield from self._address(option, url)
        yield from self._secret()
        if self._fact.program:
            yield self._problem("command", f"`{self._retrain.command[0]}`: {self._fact.program}")
        if float(self._retrain.timeout) <= 0:
            yield self._problem("timeout", "must be more than nothing")
        if float(self._retrain.ends_within) <= 0:
            yield self._problem("ends_within", "must be more than nothing")

    def _evidence(self) -> Iterator[Problem]:
        if self._gateway.log is None:
            message = "without a prediction log labels have nothing to be joined with"
            yield self._problem("", message, "write `log: {}` into gateway.yaml")
        prediction = self._monitoring.prediction
        if prediction is None:
            message = "without `monitoring.prediction` no loss can be computed"
            yield self._problem("", message, "say which output is the decision or the score")
            return
        metric, possible = self._retrain.metric, _METRICS[prediction.task]
        if metric not in possible:
            message = f"`{metric}` is no metric of the task `{prediction.task}`"
            yield self._problem("metric", message, f"one of {', '.join(possible)}")
        elif metric in _OF_SCORES and not prediction.score:
            yield self._problem("metric", f"`{metric}` needs `monitoring.prediction.score`")

    def _destination(self) -> Iterator[Problem]:
        named = [
            option for option in ("webhook", "airflow", "command") if getattr(self._retrain, option)
        ]
        if len(named) > 1:
            message = f"it names {' and '.join(named)}: one request is for one of them"
            yield self._problem(named[1], message)
        elif not named:
            message = "nobody is asked: harm is shown and told of, and nothing else happens"
            suggestion = "set webhook, airflow or command"
            yield self._problem("", message, suggestion, "warning")

    def _address(self, option: str, url: str) -> Iterator[Problem]:
        try:
            where = parse_destination(url)
        except ValueError as error:
            yield self._problem(option, str(error))
            return
        local = admin_is_loopback(self._gateway)
        host = "127.0.0.1" if where.host == "localhost" else where.host
        refused = host_refusal(where.host, self._gateway.notify.hosts)
        if refusal := refused or address_refusal(host, loopback=local):
            yield self._problem(option, f"`{where.host}` {refusal}")
        if option == "airflow" and not _AIRFLOW.search(url):
            message = "it does not end as Airflow 3's address of a DAG's runs does"
            yield self._problem(option, message, "…/api/v2/dags/DAG/dagRuns")
        beyond = not address_refusal(host, loopback=False) and host != "127.0.0.1"
        if option == "airflow" and self._retrain.secret_file and not where.encrypted and beyond:
            message = "the bearer token would go over the network as it is"
            yield self._problem(option, message, "use https://", "warning")

    def _secret(self) -> Iterator[Problem]:
        retrain = self._retrain
        if self._fact.secret:
            yield self._problem("secret_file", f"`{retrain.secret_file}`: {self._fact.secret}")
        elif self._fact.secret_mode & 0o077:
            message = f"others may read the secret (mode {self._fact.secret_mode:04o})"
            yield self._problem("secret_file", message, "chmod 600", "warning")
        if retrain.webhook and not retrain.secret_file:
            message = "without `secret_file` events are not signed: anybody could send one"
            yield self._problem("webhook", message, severity="warning")
        if retrain.secret_file and not (retrain.webhook or retrain.airflow):
            message = "a program is given no secret: it has its own"
            yield self._problem("secret_file", message, severity="warning")
