"""Networks of several nodes over loopback sockets, and certificates for them."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import random
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from shardforge.ids import NodeId
from shardforge.server.peer.network import PeerNetwork

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
SECONDS_MAX = 20


def run(loop: str, body: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test's body on one kind of event loop; it must end, and leave no complaint of the loop's."""
    complaints: list[dict[str, Any]] = []

    async def bounded() -> None:
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: complaints.append(context)
        )
        async with asyncio.timeout(SECONDS_MAX):
            await body()

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(bounded())
    assert not complaints


async def until(holds: Callable[[], bool]) -> None:
    """Return once a condition holds that nothing announces."""
    while not holds():  # noqa: ASYNC110  # a turn of the loop, not a pause
        await asyncio.sleep(0)


@dataclass
class Member:
    """A network that listens, and what it was sent."""

    network: PeerNetwork
    server: asyncio.Server | None = None
    address: str = ""
    frames: asyncio.Queue[tuple[int, bytes]] = field(default_factory=asyncio.Queue)

    async def listen(self, port: int = 0) -> None:
        """Accept connections, on the same port again if given."""
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(self.network.accept, "127.0.0.1", port)
        self.address = f"127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        self.network.on_frame(lambda node, frame: self.frames.put_nowait((node, frame)))

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.address.rpartition(":")[2])

    async def stop(self) -> None:
        """End everything; its port is free."""
        if self.server is not None:
            self.server.close()
        await self.network.close()
        if self.server is not None:
            await self.server.wait_closed()


@contextlib.asynccontextmanager
async def members(*ids: int, **options: Any) -> AsyncIterator[list[Member]]:
    """Nodes that know one another."""
    found = [Member(PeerNetwork(NodeId(node), "c", random.Random(node), **options)) for node in ids]
    for member in found:
        await member.listen()
    for one in found:
        for other in found:
            one.network.set_address(other.network.node, other.address)
    try:
        yield found
    finally:
        for member in found:
            await member.stop()


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


@dataclass
class Authority:
    """A certificate authority in a folder."""

    folder: Path
    name: str = "ca"

    def __post_init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(_name(self.name), self._key.public_key(), authority=True)
        self.path = self.folder / f"{self.name}.pem"
        self.path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, authority: bool
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder().subject_name(subject).issuer_name(_name(self.name)).public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
            )
        )  # fmt: skip
        return builder.sign(self._key, hashes.SHA256())

    def certificate(self, name: str) -> tuple[Path, Path]:
        """A certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(_name(name), key.public_key(), authority=False)
        paths = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        paths[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return paths

    def contexts(self, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
        """What a node accepts and dials with: both sides must show a certificate of this authority."""
        files = self.certificate(name)
        accepting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        dialling = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        for context in (accepting, dialling):
            context.load_cert_chain(*files)
            context.load_verify_locations(self.path)
            context.verify_mode = ssl.CERT_REQUIRED
        return accepting, dialling
