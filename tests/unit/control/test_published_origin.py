"""What a revision says of the files that it came from."""

import logging
from pathlib import Path

import pytest
from control_kit import ConfigDirectory

from serving.clock import ManualClock
from serving.config.load import content_digest
from serving.config.schema import GatewayConfig
from serving.control.publishing.compile import Compiled, compile_configuration
from serving.control.publishing.journal import Journal
from serving.control.publishing.publisher import Publisher
from serving.control.stores.store import MemoryStore
from serving.errors import Conflict


class Served:
    """A directory that was published once."""

    def __init__(self, folder: Path) -> None:
        self.directory = ConfigDirectory(folder / "config")
        self.journal = Journal(folder / "journal")
        self._data = folder / "data"
        self.publisher = Publisher(
            store=MemoryStore(),
            journal=self.journal,
            compile_directory=self._compile,
            gateway=GatewayConfig(),
            data=self._data,
            clock=ManualClock(),
            log=logging.getLogger("test"),
        )

    def _compile(self, directory: Path) -> Compiled:
        return compile_configuration(directory, self._data)

    def digests(self) -> list[str]:
        """Of each revision, oldest first."""
        return [one.origin.digest if one.origin else "" for one in self.journal.newest(9)]


@pytest.fixture
async def served(tmp_path: Path) -> Served:
    """Started."""
    made = Served(tmp_path)
    (tmp_path / "data").mkdir()
    await made.publisher.start(made.directory.root)
    return made


async def test_a_revision_says_which_files_it_is_of(served: Served) -> None:
    """At the start and when applied; also once a model is unloaded, which changes no file."""
    root = served.directory.root
    first = content_digest(root)
    served.directory.traffic(canary={"version": "v2", "weight": 5})
    await served.publisher.apply(root, author="ann")
    await served.publisher.set_loaded("demo", loaded=False, author="ann")

    second = content_digest(root)
    assert first != second
    assert served.digests() == [first, second, second]


async def test_only_the_files_that_were_looked_at_are_applied(served: Served) -> None:
    """Others are a conflict, and nothing changes."""
    root = served.directory.root
    looked_at = content_digest(root)
    served.directory.traffic(canary={"version": "v2", "weight": 5})

    with pytest.raises(Conflict, match="the files have changed"):
        await served.publisher.apply(root, author="ann", expected_digest=looked_at)
    assert served.publisher.revision == 1
    await served.publisher.apply(root, author="ann", expected_digest=content_digest(root))
    assert served.publisher.revision == 2
