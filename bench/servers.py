"""The two servers of a comparison, each in a temporary folder on a free loopback port, both with fsync on."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

READY_SECONDS_MAX = 60


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def postgres_folder() -> Path | None:
    """The folder of PostgreSQL's server programs, or None where there is none."""
    found = shutil.which("initdb")
    return Path(found).resolve().parent if found else None


@dataclass
class Running:
    """A server under test."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    folder: Path
    start_seconds: float = 0.0
    user: str = "shardforge"
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def dsn(self) -> str:
        """How to connect."""
        return f"host=127.0.0.1 port={self.port} user={self.user} dbname=shardforge"

    def resident_mb(self) -> float:
        """Proportional memory of the server and its children, in MB."""
        pids = [self.process.pid]
        children = subprocess.run(
            ["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=False
        )
        pids += [int(pid) for pid in children.stdout.split()]
        total = 0
        for pid in pids:
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
        return total / 1024

    def stop(self) -> None:
        """Stop the server and remove its folder."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def _wait_ready(running: Running) -> None:
    begun = time.monotonic()
    while True:
        try:
            psycopg.connect(running.dsn, connect_timeout=2).close()
        except psycopg.OperationalError:
            if running.process.poll() is not None or time.monotonic() - begun > READY_SECONDS_MAX:
                raise
            time.sleep(0.02)
        else:
            running.start_seconds = time.monotonic() - begun
            return


def start_shardforge(*, settings: dict[str, str] | None = None) -> Running:
    """One ShardForge node with defaults, but for `settings` (environment variables)."""
    folder = Path(tempfile.mkdtemp(prefix="shardforge-bench-"))
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "shardforge",
        "start",
        "--data-dir",
        str(folder / "data"),
        "--bind",
        f"127.0.0.1:{port}",
    ]
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env={**os.environ, **(settings or {})}
        )
    running = Running("ShardForge", port, process, folder)
    _wait_ready(running)
    return running


def _as_postgres() -> dict[str, object]:
    """PostgreSQL refuses to run as root: become its own user where we are root."""
    if os.geteuid() != 0:
        return {}
    account = pwd.getpwnam("postgres")
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def start_postgres() -> Running:
    """One PostgreSQL with its defaults (fsync on) and a database and role called shardforge."""
    programs = postgres_folder()
    assert programs is not None, "checked by the caller"
    folder = Path(tempfile.mkdtemp(prefix="postgres-bench-"))
    options = _as_postgres()
    if options:
        shutil.chown(folder, "postgres", "postgres")
    data, port = folder / "data", free_port()
    initdb = [
        programs / "initdb",
        "-D",
        data,
        "-U",
        "shardforge",
        "-A",
        "trust",
        "--locale=C",
        "--encoding=UTF8",
    ]
    subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, cwd=folder, **options)  # type: ignore[call-overload]
    server = [
        programs / "postgres",
        "-D",
        data,
        "-p",
        str(port),
        "-k",
        str(folder),
        "-c",
        "listen_addresses=127.0.0.1",
    ]
    process = subprocess.Popen(
        server, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder, **options
    )  # type: ignore[call-overload]
    running = Running("PostgreSQL", port, process, folder)
    running_template = Running("PostgreSQL", port, process, folder)
    with psycopg.connect(_template(running_template), autocommit=True) as connection:
        connection.execute("CREATE DATABASE shardforge")
    _wait_ready(running)
    return running


def _template(running: Running) -> str:
    dsn = f"host=127.0.0.1 port={running.port} user=shardforge dbname=postgres"
    begun = time.monotonic()
    while True:
        try:
            psycopg.connect(dsn, connect_timeout=2).close()
        except psycopg.OperationalError:
            if running.process.poll() is not None or time.monotonic() - begun > READY_SECONDS_MAX:
                raise
            time.sleep(0.02)
        else:
            return dsn
