"""What an engine that starts is waiting for, as lines to show."""

from typing import NamedTuple, Protocol

from serving.engine.lifecycle import State
from serving.engine.programs import Options
from serving.engine.report import Addresses

__all__ = ["Engine", "Stage", "stage_of"]


class Stage(NamedTuple):
    """One line of progress."""

    name: str
    text: str
    done: bool


def stage_of(name: str, state: State) -> Stage:
    """The line of one process."""
    return Stage(name, state.replace("_", " "), state is State.READY)


class Engine(Protocol):
    """What `sluice up` needs of an engine, whichever it is."""

    @property
    def options(self) -> Options:
        """What was asked for."""
        ...

    @property
    def store_url(self) -> str:
        """The store's address, once started."""
        ...

    @property
    def addresses(self) -> Addresses:
        """Where the listeners are. Raises EngineError before `start`."""
        ...

    async def start(self) -> Addresses:
        """Begin to start everything. Raises EngineError, and then leaves nothing behind."""
        ...

    async def until_ready(self) -> None:
        """Wait until everything serves. Raises EngineError once that is hopeless."""
        ...

    async def waits_for(self) -> str:
        """What control says it waits for, empty if it says nothing."""
        ...

    async def until_broken(self) -> None:
        """Wait for an end that nobody asked for, and raise it."""
        ...

    async def stop(self) -> None:
        """Drain and end everything; leave no process, socket or lock."""
        ...

    def kill(self) -> None:
        """End everything now. `stop` still has to be awaited."""
        ...

    def stages(self) -> list[Stage]:
        """How far the start is."""
        ...
