"""A pytest plugin: `-p shardforge.testing.plugin`, or `pytest_plugins = ["shardforge.testing.plugin"]`.

`shardforge_cluster` is one cluster of three nodes for the whole test run; `shardforge_db` is the connection string of a
database that is made for one test and dropped after it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import psycopg
import pytest

from shardforge.testing.cluster import Cluster, cluster

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def shardforge_cluster() -> Iterator[Cluster]:
    """A cluster of three nodes."""
    with cluster(nodes=3) as made:
        yield made


@pytest.fixture
def shardforge_db(shardforge_cluster: Cluster) -> Iterator[str]:
    """The connection string of a fresh database."""
    name = f"test_{next(_numbers)}"
    with psycopg.connect(shardforge_cluster.dsn, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    yield shardforge_cluster.dsn.replace("dbname=shardforge", f"dbname={name}")
    with psycopg.connect(shardforge_cluster.dsn, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name}".encode())
