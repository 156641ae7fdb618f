"""`shardforge demo`: a local cluster of real processes with sample data, in one command."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import psycopg
import typer

from shardforge.cli.cluster import ask_status
from shardforge.cli.output import fail
from shardforge.errors import ConsensusError, DatabaseError, NetworkError, StorageError

READY_SECONDS = 30.0
SETTLE_SECONDS = 30.0
STOP_SECONDS = 15.0
POLL_SECONDS = 0.2

SAMPLE = """
CREATE TABLE city (id int PRIMARY KEY, name text NOT NULL, country text NOT NULL);
CREATE TABLE visit (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, city_id int REFERENCES city,
                    visited_on date NOT NULL, cost numeric(8,2));
INSERT INTO city VALUES
    (1, 'Lisbon', 'Portugal'), (2, 'Oslo', 'Norway'), (3, 'Kyoto', 'Japan'), (4, 'Quito', 'Ecuador');
INSERT INTO visit (city_id, visited_on, cost)
    SELECT 1 + n % 4, date '2024-01-01' + n, 100 + n * 7 % 300 FROM generate_series(1, 200) n;
"""


class LocalNode:
    """One `shardforge start` process."""

    def __init__(self, folder: Path, joins: list[str]) -> None:
        self.folder = folder
        command = [sys.executable, "-m", "shardforge", "start", "--data-dir", str(folder),
                   "--bind", "127.0.0.1:0"]  # fmt: skip
        for address in joins:
            command += ["--join", address]
        folder.parent.mkdir(parents=True, exist_ok=True)
        self.errors = folder.parent / f"{folder.name}.log"
        with self.errors.open("ab") as errors:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
            )
        self.port = self._ready()

    def _ready(self) -> int:
        """The port, once the node says that it is ready. Raises NetworkError."""
        assert self.process.stdout is not None, "asked for"
        said = b""
        deadline = time.monotonic() + READY_SECONDS
        while b"psql -h" not in said or not said.endswith(b"\n"):
            ready, _, _ = select.select([self.process.stdout], [], [], deadline - time.monotonic())
            piece = os.read(self.process.stdout.fileno(), 4096) if ready else b""
            if not piece:
                self.stop()
                raise NetworkError(f"a node did not start; see {self.errors}", "08006")
            said += piece
        return int(said.split(b" -p ")[1].split()[0])

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    def stop(self) -> None:
        """Ask it to stop, and wait."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def demo(
    nodes: Annotated[int, typer.Option(min=1, max=9, help="How many nodes.")] = 3,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="An empty folder for the nodes' data; a temporary one by default."),
    ] = None,
) -> None:
    """Run a local cluster with sample data until Ctrl-C."""
    with ExitStack() as stack:
        folder = data_dir or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="shardforge-demo-"))
        )
        try:
            if folder.exists() and any(folder.iterdir()):
                raise StorageError(f'the folder "{folder}" is not empty', "F0000")
            running: list[LocalNode] = []
            for number in range(1, nodes + 1):
                running.append(LocalNode(folder / f"n{number}", [n.address for n in running[:1]]))
                stack.callback(running[-1].stop)
            _settle(running[0].address)
            _load(running[0].port)
        except DatabaseError as error:
            fail(error)
        ports = ",".join(str(node.port) for node in running)
        hosts = ",".join("127.0.0.1" for _ in running)
        typer.echo(
            f"A cluster of {nodes} is ready, with sample tables city and visit. Connect to any node:\n"
        )
        for node in running:
            typer.echo(f"    psql -h 127.0.0.1 -p {node.port} -U shardforge shardforge")
        typer.echo(
            f"\nor to all of them:\n\n    host={hosts} port={ports} user=shardforge dbname=shardforge"
        )
        typer.echo(f"\nLook at it with: shardforge cluster status --host {running[-1].address}")
        typer.echo("Ctrl-C stops it.")
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            signal.pause()
        except KeyboardInterrupt:
            typer.echo("stopping")


def _settle(address: str) -> None:
    """Return once every shard has its replicas."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while ask_status(address)["under_replicated_shards"]:
        if time.monotonic() > deadline:
            raise ConsensusError("the nodes did not get their replicas in time")
        time.sleep(POLL_SECONDS)


def _load(port: int) -> None:
    """Put the sample data in."""
    dsn = f"host=127.0.0.1 port={port} user=shardforge dbname=shardforge"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(SAMPLE)
