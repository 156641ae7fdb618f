"""The servers of a comparison, each in a temporary folder on a free loopback port, all with fsync on."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
    metrics_port: int = 0
    user: str = "shardforge"
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def dsn(self) -> str:
        """How to connect."""
        return f"host=127.0.0.1 port={self.port} user={self.user} dbname=shardforge"

    def resident_mb(self) -> float:
        """Proportional memory of the server and its children, in MB."""
        return sum(_memory_kb(text).get("Pss", 0) for text in self._told("smaps_rollup")) / 1024

    def cpu_seconds(self) -> float:
        """Processor time that the server and its children have had, those that ended included."""
        return sum(map(cpu_ticks, self._told("stat"))) / os.sysconf("SC_CLK_TCK")

    def _told(self, name: str) -> Iterator[str]:
        """What the kernel tells of the server and of those children that live."""
        children = subprocess.run(
            ["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=False
        )
        for pid in (*children.stdout.split(), self.process.pid):
            try:
                yield Path(f"/proc/{pid}/{name}").read_text(encoding="ascii")
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended just now

    def stop(self) -> None:
        """Stop the server and remove its folder."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def cpu_ticks(stat: str) -> int:
    """User and system time, with that of children waited for, in a line of /proc/PID/stat."""
    after_name = stat.rpartition(")")[2].split()
    return sum(int(field) for field in after_name[11:15])


def _memory_kb(rollup: str) -> dict[str, int]:
    lines = rollup.splitlines()[1:]
    return {name: int(value.split()[0]) for name, value in (line.split(":") for line in lines)}


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


def start_shardforge(
    *, settings: dict[str, str] | None = None, joins: list[str] | None = None, metrics: bool = False
) -> Running:
    """One ShardForge node with defaults, but for `settings` (environment variables); it joins those at `joins`."""
    folder = Path(tempfile.mkdtemp(prefix="shardforge-bench-"))
    port = free_port()
    metrics_port = free_port() if metrics else 0
    command = [
        sys.executable,
        "-m",
        "shardforge",
        "start",
        "--data-dir",
        str(folder / "data"),
        "--bind",
        f"127.0.0.1:{port}",
        *(("--metrics-port", str(metrics_port)) if metrics else ()),
        *(word for address in joins or [] for word in ("--join", address)),
    ]
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env={**os.environ, **(settings or {})}
        )
    running = Running("ShardForge", port, process, folder, metrics_port=metrics_port)
    _wait_ready(running)
    return running


def _as_postgres() -> dict[str, Any]:
    """PostgreSQL refuses to run as root: become its own user where we are root."""
    if os.geteuid() != 0:
        return {}
    account = pwd.getpwnam("postgres")
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def _postgres_program(name: str) -> Path:
    programs = postgres_folder()
    assert programs is not None, "checked by the caller"
    return programs / name


def _postgres_folder_made() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="postgres-bench-"))
    if _as_postgres():
        shutil.chown(folder, "postgres", "postgres")
    return folder


def _launch_postgres(name: str, folder: Path) -> Running:
    """The server over `folder`/data."""
    port = free_port()
    command = [
        _postgres_program("postgres"), "-D", folder / "data", "-p", str(port), "-k", folder,
        "-c", "listen_addresses=127.0.0.1", "-c", f"cluster_name={name}",
    ]  # fmt: skip
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, cwd=folder, **_as_postgres()
        )
    return Running(name, port, process, folder)


def start_postgres() -> Running:
    """One PostgreSQL with its defaults (fsync on) and a database and role called shardforge."""
    folder = _postgres_folder_made()
    initdb = [
        _postgres_program("initdb"), "-D", folder / "data", "-U", "shardforge", "-A", "trust",
        "--locale=C", "--encoding=UTF8",
    ]  # fmt: skip
    subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, cwd=folder, **_as_postgres())
    running = _launch_postgres("PostgreSQL", folder)
    with psycopg.connect(_template(running), autocommit=True) as connection:
        connection.execute("CREATE DATABASE shardforge")
    _wait_ready(running)
    return running


def start_standby(primary: Running, name: str) -> Running:
    """A standby of `primary` that calls itself `name` to it."""
    folder = _postgres_folder_made()
    backup = [
        _postgres_program("pg_basebackup"), "-D", folder / "data", "-R", "-X", "stream", "-c", "fast",
        "-h", "127.0.0.1", "-p", str(primary.port), "-U", "shardforge",
    ]  # fmt: skip
    subprocess.run(backup, check=True, stdout=subprocess.DEVNULL, cwd=folder, **_as_postgres())
    running = _launch_postgres(name, folder)
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
