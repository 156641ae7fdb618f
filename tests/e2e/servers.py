"""Starting real ShardForge processes for tests, on free loopback ports and in temporary folders."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psycopg

READY_SECONDS_MAX = 60


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ServerProcess:
    """One `shardforge start` process over a data folder that outlives it."""

    def __init__(
        self,
        folder: Path,
        *,
        settings: dict[str, str] | None = None,
        arguments: tuple[str, ...] = (),
    ) -> None:
        self.folder = folder
        self.host = "127.0.0.1"
        """Where clients and other nodes reach it."""
        self.bind_host = "127.0.0.1"
        self.prefix: tuple[str, ...] = ()
        """What is put before the command."""
        self.port = free_port()
        self.settings = settings or {}
        self.arguments = arguments
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.folder / "data"

    @property
    def advertised(self) -> str:
        """Where other nodes reach it."""
        own = f"{self.host}:{self.port}"
        return self.settings.get("SHARDFORGE_CLUSTER_ADVERTISE_ADDRESS", own)

    @property
    def dsn(self) -> str:
        """How to connect."""
        return f"host={self.host} port={self.port} user=shardforge dbname=shardforge"

    def url(self, driver: str) -> str:
        """A SQLAlchemy URL."""
        return f"postgresql+{driver}://shardforge@127.0.0.1:{self.port}/shardforge"

    def start(self) -> float:
        """Start, and return the seconds until it says that it is ready."""
        command = [*self.prefix, sys.executable, "-m", "shardforge", "start", "--data-dir", str(self.data),
                   "--bind", f"{self.bind_host}:{self.port}", *self.arguments]  # fmt: skip
        self.folder.mkdir(parents=True, exist_ok=True)
        begun = time.monotonic()
        with (self.folder / "stderr").open("ab") as errors:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, env={**os.environ, **self.settings}
            )
        assert self.process.stdout is not None
        seen = b""
        while b"is ready" not in seen:
            ready, _, _ = select.select([self.process.stdout], [], [], READY_SECONDS_MAX)
            piece = os.read(self.process.stdout.fileno(), 4096) if ready else b""
            if not piece:
                self.kill()
                raise AssertionError(
                    f"the server did not start: {(self.folder / 'stderr').read_text()[-4000:]}"
                )
            seen += piece
        return time.monotonic() - begun

    def connect(self, *, autocommit: bool = True) -> psycopg.Connection[tuple[object, ...]]:
        """A new client connection."""
        return psycopg.connect(self.dsn, autocommit=autocommit)

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            if self.process.stdout is not None:
                self.process.stdout.close()
            self.process = None

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self.process is not None, "started"
        self.process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop; its exit code."""
        self.send(number)
        return self.ended()

    def ended(self) -> int:
        """Wait until it has ended; its exit code."""
        assert self.process is not None, "started"
        code = self.process.wait(20)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.process = None
        return code
