"""Nodes of real processes that can be cut off from each other, while clients reach all of them.

`Namespaces` gives each node a network of its own on a bridge, which needs root; a cut is a wrong hardware address, so
that packets vanish without a word. `Proxies`, for everybody else, puts a TCP proxy before each node, which the others
dial; a cut drops the bytes. It reads from a connection's opening who dials.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

import psycopg

from shardforge.server.peer import codec
from tests.e2e.servers import ServerProcess

NOWHERE = "02:00:00:00:00:99"
PATIENCE_SECONDS = 30.0


class Network(Protocol):
    """Where nodes are, and which of them reach each other."""

    def place(self, number: int, server: ServerProcess) -> None:
        """Give a node that is to be started its place."""
        ...

    def cut_off(self, number: int, others: set[int]) -> None:
        """Let nothing pass between a node and others, either way."""
        ...

    def heal(self) -> None:
        """Let everything pass."""
        ...

    def close(self) -> None:
        """Remove everything."""
        ...


def _ip(*arguments: str, check: bool = True) -> None:
    subprocess.run(["ip", *arguments], check=check, capture_output=True, timeout=20)


class Namespaces:
    """Nodes in network namespaces. Raises CalledProcessError where that is not allowed."""

    def __init__(self) -> None:
        self._name = f"sf{os.getpid()}"
        self._net = f"10.{200 + os.getpid() % 50}.{os.getpid() // 50 % 250}"
        self._numbers: list[int] = []
        self._cuts: set[tuple[int, int]] = set()
        _ip("link", "add", self._bridge, "type", "bridge")
        try:
            _ip("addr", "add", f"{self._net}.254/24", "dev", self._bridge)
            _ip("link", "set", self._bridge, "up")
            _ip("netns", "add", self._space(0))  # to see whether that is allowed
        except subprocess.CalledProcessError:
            self.close()
            raise

    @property
    def _bridge(self) -> str:
        return f"{self._name}b"

    def _space(self, number: int) -> str:
        return f"{self._name}n{number}"

    def _cable(self, number: int) -> str:
        return f"{self._name}v{number}"

    def _address(self, number: int) -> str:
        return f"{self._net}.{number}"

    def place(self, number: int, server: ServerProcess) -> None:
        """A namespace with one end of a cable, and the other end on the bridge."""
        space, cable = self._space(number), self._cable(number)
        self._numbers.append(number)
        _ip("netns", "add", space)
        _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", space)
        _ip("link", "set", cable, "master", self._bridge, "up")
        inside = ("-n", space)
        _ip(*inside, "addr", "add", f"{self._address(number)}/24", "dev", "eth0")
        _ip(*inside, "link", "set", "eth0", "up")
        _ip(*inside, "link", "set", "lo", "up")
        server.host, server.bind_host = self._address(number), "0.0.0.0"
        server.prefix = ("ip", "netns", "exec", space)
        advertised = f"{server.host}:{server.port}"
        server.settings = {**server.settings, "SHARDFORGE_CLUSTER_ADVERTISE_ADDRESS": advertised}

    def cut_off(self, number: int, others: set[int]) -> None:
        """Each believes that the other is at a hardware address that nobody has."""
        for other in others:
            for here, there in ((number, other), (other, number)):
                _ip("-n", self._space(here), "neigh", "replace", self._address(there),
                    "lladdr", NOWHERE, "dev", "eth0", "nud", "permanent")  # fmt: skip
                self._cuts.add((here, there))

    def heal(self) -> None:
        """Let them look for each other again."""
        while self._cuts:
            here, there = self._cuts.pop()
            _ip("-n", self._space(here), "neigh", "del", self._address(there), "dev", "eth0")

    def close(self) -> None:
        """Remove cables, namespaces and bridge. The kernel gives up a namespace, and a cable with it, only later."""
        for number in self._numbers:
            _ip("link", "del", self._cable(number), check=False)
        for number in (0, *self._numbers):
            _ip("netns", "del", self._space(number), check=False)
        _ip("link", "del", self._bridge, check=False)


class Proxies:
    """Nodes behind proxies."""

    def __init__(self) -> None:
        self._cuts: set[frozenset[int]] = set()
        self._doors: list[socket.socket] = []

    def place(self, number: int, server: ServerProcess) -> None:
        """A proxy that the other nodes dial."""
        door = socket.create_server(("127.0.0.1", 0))
        self._doors.append(door)
        advertised = f"127.0.0.1:{door.getsockname()[1]}"
        server.settings = {**server.settings, "SHARDFORGE_CLUSTER_ADVERTISE_ADDRESS": advertised}
        accept = threading.Thread(target=self._accept, args=(door, number, server), daemon=True)
        accept.start()

    def _accept(self, door: socket.socket, number: int, server: ServerProcess) -> None:
        while True:
            try:
                near, _ = door.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", server.port))
            except OSError:
                near.close()
                continue
            pair = _Pair(near, far, number, self._cuts)
            threading.Thread(target=pair.run, daemon=True).start()

    def cut_off(self, number: int, others: set[int]) -> None:
        """Drop what passes between them from now on."""
        self._cuts |= {frozenset((number, other)) for other in others}

    def heal(self) -> None:
        """Drop nothing any more; connections that lost something have ended."""
        self._cuts.clear()

    def close(self) -> None:
        """Accept nothing any more."""
        for door in self._doors:
            with suppress(OSError):
                door.shutdown(socket.SHUT_RDWR)
            door.close()


class _Pair:
    """A connection to `number`, and who dialled it, once that is known."""

    def __init__(
        self, near: socket.socket, far: socket.socket, number: int, cuts: set[frozenset[int]]
    ) -> None:
        self._near = near
        self._far = far
        self._number = number
        self._cuts = cuts
        self._opening = b""
        self._dialler: int | None = None
        self._lossy = False

    def run(self) -> None:
        """Pass everything on, both ways, until one side ends."""
        with self._near, self._far:
            back = threading.Thread(target=self._pass, args=(self._far, self._near), daemon=True)
            back.start()
            self._pass(self._near, self._far)
            back.join()

    def _pass(self, source: socket.socket, to: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if source is self._near and self._dialler is None:
                    self._read(data)
                cut = frozenset((self._number, self._dialler or 0)) in self._cuts
                self._lossy |= cut
                if cut:
                    continue
                if self._lossy:
                    break
                to.sendall(data)
        for end in (source, to):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _read(self, data: bytes) -> None:
        """Magic, a byte about TLS, and the dialling node's hello."""
        self._opening += data
        start = codec.OPENING_BYTES + codec.HEADER_BYTES
        if len(self._opening) >= start:
            head = codec.read_header(self._opening, codec.OPENING_BYTES, codec.HELLO_BYTES_MAX)
            if len(self._opening) >= start + head.length:
                frame = head.frame(self._opening[start : start + head.length])
                self._dialler = codec.read_hello(frame.payload).node


@contextmanager
def partitionable() -> Iterator[Network]:
    """Namespaces where they are allowed; proxies elsewhere, or when E2E_PROXIES is set."""
    made: Network
    try:
        if shutil.which("ip") is None or os.environ.get("E2E_PROXIES"):
            made = Proxies()
        else:
            made = Namespaces()
    except subprocess.CalledProcessError:
        made = Proxies()
    try:
        yield made
    finally:
        made.close()


def read_only(server: ServerProcess) -> psycopg.Connection[tuple[object, ...]]:
    """A connection to a node that says that it reads only, awaited."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            connection = psycopg.connect(server.dsn, autocommit=True, connect_timeout=2)
        except psycopg.OperationalError:
            continue
        if connection.info.parameter_status("in_hot_standby") == "on":
            return connection
        connection.close()
    raise AssertionError("the minority does not begin to read only")
