"""Which feature store a command means, and a cache over it."""

import functools
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

import click
import msgspec

from feature_cache.address import Address
from feature_cache.cache import FeatureCache
from feature_cache.errors import InvalidAddress
from feature_cache.keys import EntityValue
from feature_cache.store import RemoteStore
from feature_cache.views import FeatureView
from serving.cli.admin_address import running_engine
from serving.cli.output import CommandError, Unreachable
from serving.cli.where import Where
from serving.config.load import Loaded, load_directory
from serving.config.problems import did_you_mean

__all__ = ["Place", "connected", "place_options", "read_entity"]

_CONNECT_SECONDS: Final = 3.0
_ANSWER_SECONDS: Final = 5.0
_Callback = TypeVar("_Callback", bound=Callable[..., Any])


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A configuration, and the data directory of the gateway that runs it."""

    loaded: Loaded
    data: Path | None = None

    @property
    def views(self) -> dict[str, FeatureView]:
        """Every view of the configuration."""
        return self.loaded.configuration.views

    def view(self, name: str) -> FeatureView:
        """One view. Raises CommandError naming the near one."""
        if name not in self.views:
            hint = did_you_mean(name, self.views) or f"there is {', '.join(self.views) or 'none'}"
            raise CommandError(f"no view `{name}` in {self.loaded.root}", hint)
        return self.views[name]

    @property
    def address(self) -> str:
        """The store's address. Raises Unreachable: it is embedded in a gateway that is down."""
        gateway = self.loaded.configuration.gateway
        url = gateway.features.store or gateway.store
        if url != "embedded":
            return url
        near = self.loaded.root
        report = running_engine(Where(data=self.data).data_directory(near))
        if report is None:
            raise Unreachable(
                f"no gateway runs on {self.data or near / '.sluice'}, and its store runs with it",
                hint=f"`sluice up {near}` starts it; `--data DIR` says where it is",
            )
        return f"unix://{quote(str(Path(report.data) / 'store' / 'store.sock'))}"


def place_options(callback: _Callback) -> _Callback:
    """Add `--config` and `--data`, and pass a `Place` as the keyword `place`."""

    @click.option(
        "--config",
        "config",
        metavar="DIR",
        type=click.Path(path_type=Path, file_okay=False),
        envvar="SLUICE_CONFIG",
        default=Path(),
        help="Configuration directory whose views and store are meant "
        "[default: $SLUICE_CONFIG, or here].",
    )
    @click.option(
        "--data",
        type=click.Path(path_type=Path, file_okay=False),
        help="Data directory of the gateway whose embedded store is meant "
        "[default: .sluice in the configuration directory].",
    )
    @functools.wraps(callback)
    def wrapped(*args: Any, config: Path, data: Path | None, **kwargs: Any) -> Any:
        if not (config / "gateway.yaml").is_file():
            raise CommandError(
                f"no gateway.yaml in {config.resolve()}",
                "name the configuration directory with --config DIR",
            )
        return callback(*args, place=Place(loaded=load_directory(config), data=data), **kwargs)

    return wrapped  # type: ignore[return-value]


@asynccontextmanager
async def connected(place: Place) -> AsyncIterator[FeatureCache]:
    """A cache over the place's store. Raises Unreachable if the store is."""
    try:
        store = RemoteStore(Address.parse(place.address), tracking=False)
    except InvalidAddress as error:
        raise CommandError(f"features.store: {error}") from error
    # What it would log is said by the error below, once.
    logging.getLogger("features").setLevel(logging.CRITICAL)
    store.link.start()
    try:
        if not await store.link.ready(_CONNECT_SECONDS):
            reason = store.link.reason or "it does not answer"
            raise Unreachable(
                f"the feature store cannot be reached: {reason}",
                hint="`features.store` or `store` of gateway.yaml says where it is",
            )
        cache = FeatureCache(
            store,
            place.views,
            tenant=place.loaded.configuration.gateway.features.tenant,
            near_cache_bytes=0,
            timeout=_ANSWER_SECONDS,
        )
        try:
            yield cache
        finally:
            await cache.close()
    finally:
        await store.link.close()


def read_entity(place: Place, words: tuple[str, ...]) -> dict[str, EntityValue]:
    """Keys from `name=value` words, each as the views that have it say.

    Raises:
        click.UsageError: a word is no pair, no view has such a key, or it is no number.
    """
    types = {name: kind for view in place.views.values() for name, kind in view.entity.items()}
    entity: dict[str, EntityValue] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise click.UsageError(f"--entity is KEY=VALUE, such as person_id=42, not `{word}`")
        if name not in types:
            hint = did_you_mean(name, types) or f"there is {', '.join(sorted(types)) or 'none'}"
            raise click.UsageError(f"no view is looked up by `{name}`; {hint}")
        if name in entity:
            raise click.UsageError(f"`{name}` is given twice; one subject at a time")
        if types[name] == "string":
            entity[name] = text
            continue
        try:
            entity[name] = int(text)
        except ValueError:
            raise click.UsageError(
                f"`{name}` is {types[name]}, and `{text}` is no number"
            ) from None
    return entity
