"""One server for the tests that do not disturb it, and fresh ones for those that do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.servers import ServerProcess


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A running server that the whole session shares."""
    running = ServerProcess(
        tmp_path_factory.mktemp("shared"), settings={"SHARDFORGE_SQL_MAX_CONNECTIONS": "60"}
    )
    running.start()
    yield running
    running.kill()


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server that is not started yet, for tests that stop, kill or configure it."""
    made = ServerProcess(tmp_path)
    yield made
    made.kill()
