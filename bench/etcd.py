"""An etcd of three members on this machine, and a load of puts or linearizable reads on it.

The requests are the two messages of etcd's API that are needed, written by hand (etcd's rpc.proto: a put is key and
value, fields 1 and 2; a range of one key is field 1, linearizable unless asked otherwise). The load is one process, as
pgbench is; client and members share the machine.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import grpc

from bench.servers import free_port

KEYS = 100_000
READY_SECONDS_MAX = 30
_PUT = "/etcdserverpb.KV/Put"
_RANGE = "/etcdserverpb.KV/Range"


def available() -> bool:
    """Whether etcd is installed (Debian: etcd-server)."""
    return shutil.which("etcd") is not None


def _field(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2, len(data)]) + data


def put_request() -> bytes:
    """A put of a random key."""
    return _field(1, b"%08d" % random.randrange(KEYS)) + _field(2, b"%d" % random.getrandbits(30))


def get_request() -> bytes:
    """A linearizable read of a random key."""
    return _field(1, b"%08d" % random.randrange(KEYS))


REQUESTS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "put": (_PUT, put_request),
    "get": (_RANGE, get_request),
}


class Etcd:
    """Three members in temporary folders."""

    name = "etcd"

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="etcd-bench-"))
        peers = {f"m{number}": free_port() for number in (1, 2, 3)}
        cluster = ",".join(f"{name}=http://127.0.0.1:{port}" for name, port in peers.items())
        self.clients: list[int] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        for name, port in peers.items():
            client = free_port()
            self.clients.append(client)
            command = [
                "etcd", "--name", name, "--data-dir", self.folder / name, "--logger", "zap", "--log-level", "error",
                "--listen-peer-urls", f"http://127.0.0.1:{port}",
                "--initial-advertise-peer-urls", f"http://127.0.0.1:{port}",
                "--listen-client-urls", f"http://127.0.0.1:{client}",
                "--advertise-client-urls", f"http://127.0.0.1:{client}",
                "--initial-cluster", cluster, "--initial-cluster-state", "new",
            ]  # fmt: skip
            with (self.folder / f"{name}.log").open("wb") as output:
                self.processes.append(
                    subprocess.Popen(command, stdout=output, stderr=output, cwd=self.folder)
                )
        asyncio.run(self._ready())

    async def _ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS_MAX
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.clients[0]}") as channel:
            call = channel.unary_unary(_PUT)
            await call(put_request(), wait_for_ready=True, timeout=deadline - time.monotonic())

    def rate(self, kind: str, clients: int, seconds: float) -> float:
        """Requests a second of `clients` that each wait for their answer, spread over the members."""
        return asyncio.run(self._load(kind, clients, seconds))

    async def _load(self, kind: str, clients: int, seconds: float) -> float:
        method, make = REQUESTS[kind]
        channels = [grpc.aio.insecure_channel(f"127.0.0.1:{port}") for port in self.clients]
        calls = [channel.unary_unary(method) for channel in channels]
        begun = time.monotonic()
        until = begun + seconds

        async def client(number: int) -> int:
            call, done = calls[number % len(calls)], 0
            while time.monotonic() < until:
                await call(make())
                done += 1
            return done

        done = sum(await asyncio.gather(*(client(number) for number in range(clients))))
        elapsed = time.monotonic() - begun
        for channel in channels:
            await channel.close()
        return done / elapsed

    def stop(self) -> None:
        """Stop the members and remove their folders."""
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(20)
        shutil.rmtree(self.folder, ignore_errors=True)
