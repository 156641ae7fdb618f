"""Nodes over loopback sockets: frames and calls arrive, whatever is lost on the way, and strangers stay out."""

from __future__ import annotations

import asyncio
import random
import ssl
from pathlib import Path
from typing import Any

import pytest

from shardforge.errors import DatabaseError, NetworkError, QueryError
from shardforge.ids import NodeId
from shardforge.server.peer import codec, outgoing
from shardforge.server.peer.network import PeerNetwork
from shardforge.server.peer.opening import dial
from tests.peers import LOOPS, Authority, Member, members, run

ONE, TWO, THREE = NodeId(1), NodeId(2), NodeId(3)

pytestmark = pytest.mark.parametrize("loop", LOOPS)


async def echo(node: NodeId, body: bytes) -> bytes:
    return b"%d:%s" % (node, body)


async def failure_of(call: Any) -> DatabaseError:
    with pytest.raises(DatabaseError) as caught:
        await call
    return caught.value


def test_frames_keep_their_order_both_ways(loop: str) -> None:
    async def body() -> None:
        async with members(1, 2, 3) as [one, two, three]:
            for number in range(2000):
                one.network.send(TWO, b"%d" % number)
                two.network.send(ONE, b"%d" % -number)
            one.network.send(THREE, bytes(5_000_000))
            assert [await two.frames.get() for _ in range(2000)] == [
                (1, b"%d" % n) for n in range(2000)
            ]
            assert [await one.frames.get() for _ in range(2000)] == [
                (2, b"%d" % -n) for n in range(2000)
            ]
            assert await three.frames.get() == (1, bytes(5_000_000))
            assert one.network.connected(TWO)
            assert one.network.frames_dropped == 0
            assert (one.network.frames_sent, two.network.frames_received) == (2001, 2000)

    run(loop, body)


def test_calls_are_answered_with_bodies_or_errors(loop: str) -> None:
    async def refuse(node: NodeId, body: bytes) -> bytes:
        raise QueryError("no", "22012", detail="d", hint="h")

    async def broken(node: NodeId, body: bytes) -> bytes:
        raise ZeroDivisionError

    async def body() -> None:
        async with members(1, 2) as [one, two]:
            two.network.on_call("echo", echo)
            two.network.on_call("refuse", refuse)
            two.network.on_call("broken", broken)
            call = one.network.call
            bodies = [b"%d" % n for n in range(500)]
            answers = await asyncio.gather(*(call(TWO, "echo", item, 5) for item in bodies))
            assert answers == [b"1:" + item for item in bodies]
            assert await call(TWO, "echo", bytes(3_000_000), 5) == b"1:" + bytes(3_000_000)
            error = await failure_of(call(TWO, "refuse", b"", 5))
            fields = (type(error), error.message, error.sqlstate, error.detail, error.hint)
            assert fields == (QueryError, "no", "22012", "d", "h")
            assert (await failure_of(call(TWO, "broken", b"", 5))).sqlstate == "XX000"
            assert "does not answer" in (await failure_of(call(TWO, "nothing", b"", 5))).message
            assert "not known" in (await failure_of(call(THREE, "echo", b"", 5))).message
            assert await call(TWO, "echo", b"still", 5) == b"1:still"

    run(loop, body)


def test_a_call_without_an_answer_ends_in_time_and_with_the_connection(loop: str) -> None:
    async def body() -> None:
        async with members(1, 2) as [one, two]:
            begun = asyncio.Event()

            async def never(node: NodeId, body: bytes) -> bytes:
                begun.set()
                await asyncio.get_running_loop().create_future()
                return b""

            two.network.on_call("never", never)
            error = await failure_of(one.network.call(TWO, "never", b"", 0.01))
            assert (error.sqlstate, type(error)) == ("08006", NetworkError)
            begun.clear()
            waiting = asyncio.ensure_future(one.network.call(TWO, "never", b"", 60))
            await begun.wait()
            await two.stop()
            assert "lost" in (await failure_of(waiting)).message

    run(loop, body)


def test_a_node_that_comes_back_is_found_at_once_when_it_dials(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        outgoing, "PAUSE_SECONDS_MIN", 3600.0
    )  # whoever sleeps, sleeps for the whole test
    monkeypatch.setattr(outgoing, "PAUSE_SECONDS_MAX", 3600.0)

    async def body() -> None:
        async with members(1, 2) as [one, two]:
            one.network.send(TWO, b"a")
            assert await two.frames.get() == (1, b"a")
            await two.stop()
            error = await failure_of(one.network.call(TWO, "echo", b"", 5))
            assert error.sqlstate == "08006"
            error = await failure_of(one.network.call(TWO, "echo", b"", 0.01))  # asleep, or refused
            assert error.sqlstate == "08006"
            assert one.network.failure(TWO) is not None
            assert not one.network.connected(TWO)

            again = Member(PeerNetwork(TWO, "c", random.Random(2)))
            await again.listen(two.port)
            again.network.on_call("echo", echo)
            waiting = asyncio.ensure_future(one.network.call(TWO, "echo", b"back", 15))
            again.network.set_address(ONE, one.address)
            again.network.send(ONE, b"I am here")
            assert await one.frames.get() == (2, b"I am here")
            assert await waiting == b"1:back"
            assert one.network.failure(TWO) is None
            assert (one.network.reconnects, again.network.reconnects) == (1, 0)
            await again.stop()

    run(loop, body)


def test_a_node_is_dialled_again_by_and_by(loop: str) -> None:
    async def body() -> None:
        async with members(1, 2) as [one, two]:
            two.network.on_call("echo", echo)
            port = two.port
            await two.stop()
            for _ in range(3):
                assert (await failure_of(one.network.call(TWO, "echo", b"", 5))).sqlstate == "08006"
            again = Member(PeerNetwork(TWO, "c", random.Random(2)))
            await again.listen(port)
            again.network.on_call("echo", echo)
            assert await one.network.call(TWO, "echo", b"x", 5) == b"1:x"
            await again.stop()

    run(loop, body)


def test_a_full_queue_loses_its_oldest_frames_whole(loop: str) -> None:
    async def body() -> None:
        async with members(1, 2, queue_bytes_max=1000) as [one, two]:
            for number in range(100):
                one.network.send(TWO, b"%0100d" % number)
            got = [int((await two.frames.get())[1]) for _ in range(10)]
            assert got == list(range(90, 100))
            assert one.network.frames_dropped == 90
            one.network.send(THREE, b"nobody")
            assert one.network.frames_dropped == 91
            one.network.send(TWO, bytes(5000))
            assert await two.frames.get() == (1, bytes(5000)), "one frame always fits"

    run(loop, body)


def test_one_turn_is_one_write(loop: str) -> None:
    async def body() -> None:
        async with members(1, 2) as [one, two]:
            one.network.send(TWO, b"first")
            await two.frames.get()
            link = one.network._peers[TWO]._link
            assert link is not None
            writes: list[bytes] = []
            transport = link.transport

            class Counting:
                def write(self, data: bytes) -> None:
                    writes.append(data)
                    transport.write(data)

            link.transport = Counting()  # type: ignore[assignment]
            for number in range(50):
                one.network.send(TWO, b"%d" % number)
            for number in range(50):
                assert await two.frames.get() == (1, b"%d" % number)
            link.transport = transport
            assert len(writes) == 1

    run(loop, body)


def test_an_address_can_change_and_a_node_be_forgotten(loop: str) -> None:
    async def body() -> None:
        async with members(1, 2) as [one, two]:
            one.network.send(TWO, b"a")
            await two.frames.get()
            await two.stop()
            moved = Member(PeerNetwork(TWO, "c", random.Random(2)))
            await moved.listen()
            moved.network.on_call("echo", echo)
            one.network.set_address(TWO, moved.address)
            assert await one.network.call(TWO, "echo", b"x", 5) == b"1:x"
            one.network.forget(TWO)
            assert "not known" in (await failure_of(one.network.call(TWO, "echo", b"x", 5))).message
            await moved.stop()

    run(loop, body)


@pytest.mark.parametrize(
    ("node", "cluster", "reason"),
    [
        (1, "other", 'node 1 belongs to cluster "other", node 2 to cluster "c"'),
        (2, "c", "node 2 was dialled by a node of the same id"),
    ],
)
def test_who_does_not_belong_is_told_why(loop: str, node: int, cluster: str, reason: str) -> None:
    async def body() -> None:
        async with members(2) as [two]:
            stranger = PeerNetwork(NodeId(node), cluster, random.Random(1))
            stranger._peers[THREE] = outgoing.Peer(
                THREE, two.address, stranger._dial, random.Random(1)
            )
            error = await failure_of(stranger.call(THREE, "echo", b"", 5))
            assert reason in error.message
            await stranger.close()

    run(loop, body)


def test_a_node_of_another_version_is_told_why(loop: str) -> None:
    async def body() -> None:
        async with members(1, 2) as [one, two]:
            hello = codec.Hello("c", 1, 7, 9)
            error = await failure_of(dial(two.address, hello, None))
            assert "node 1 speaks versions 7 to 9" in error.message
            assert one.network.failure(TWO) is None

    run(loop, body)


def test_another_node_at_the_address_is_not_believed(loop: str) -> None:
    async def body() -> None:
        async with members(1, 2, 3) as [one, two, three]:
            three.network.on_call("echo", echo)
            one.network.set_address(TWO, three.address)
            error = await failure_of(one.network.call(TWO, "echo", b"", 5))
            assert 'there is node 3 of cluster "c", not node 2' in error.message
            del two

    run(loop, body)


def test_a_node_of_no_cluster_may_ask_what_is_open(loop: str) -> None:
    async def body() -> None:
        async with members(2) as [two]:
            two.network.on_call("join", echo)
            two.network.on_call("secret", echo)
            two.network.open_to_strangers("join")
            joining = PeerNetwork(NodeId(9), "", random.Random(1))
            assert await joining.ask(two.address, "join", b"me", 5) == b"9:me"
            error = await failure_of(joining.ask(two.address, "secret", b"me", 5))
            assert error.sqlstate == "42501"
            await joining.close()

    run(loop, body)


HOSTILE = [
    b"SFPEER1\nX",
    b"SFPEER2\nC",
    b"SFPEER1\nC" + bytes(100),
    b"SFPEER1\nC" + codec.frame(codec.FRAME, b"no hello"),
    b"SFPEER1\nC" + codec.frame(codec.HELLO, b"\xc1"),
    b"SFPEER1\nC" + codec.hello_frame(codec.Hello("c", 7)) + b"\xff" * 9,
    b"SFPEER1\nC" + codec.hello_frame(codec.Hello("c", 7)) + codec.frame(codec.CALL, b"short"),
    b"SFPEER1\nC" + codec.hello_frame(codec.Hello("c", 7)) + codec.frame(codec.ANSWER, bytes(8)),
    b"SFPEER1\nC"
    + codec.hello_frame(codec.Hello("", 7))
    + codec.frame(codec.FRAME, b"of a stranger"),
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_bytes_close_their_connection_only(loop: str, hostile: bytes) -> None:
    async def body() -> None:
        async with members(1, 2) as [one, two]:
            two.network.on_call("echo", echo)
            assert await one.network.call(TWO, "echo", b"a", 5) == b"1:a"
            reader, writer = await asyncio.open_connection("127.0.0.1", two.port)
            writer.write(hostile)
            try:
                await reader.read()
            except ConnectionResetError:
                assert reader.at_eof() or reader.exception() is not None
            writer.close()
            assert await one.network.call(TWO, "echo", b"b", 5) == b"1:b"
            assert two.frames.empty()

    run(loop, body)


def test_mutual_tls(loop: str, tmp_path: Path) -> None:
    async def body() -> None:
        ours, theirs = Authority(tmp_path), Authority(tmp_path, "elsewhere")
        async with members(1, 2, tls=ours.contexts("node")) as [one, two]:
            two.network.on_call("echo", echo)
            assert await one.network.call(TWO, "echo", bytes(300_000), 5) == b"1:" + bytes(300_000)
            for tls, reason in (
                (theirs.contexts("other"), "cannot be reached"),
                (None, "this node demands TLS"),
                ((ours.contexts("x")[0], _without_certificate(ours)), ""),
            ):
                intruder = PeerNetwork(THREE, "c", random.Random(3), tls=tls)
                intruder.set_address(TWO, two.address)
                error = await failure_of(intruder.call(TWO, "echo", b"", 5))
                assert reason in error.message
                assert error.sqlstate == "08006"
                await intruder.close()

    run(loop, body)


def _without_certificate(authority: Authority) -> Any:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(authority.path)
    return context


def test_a_splice_is_a_pipe_of_raw_bytes(loop: str) -> None:
    async def body() -> None:
        async with members(1, 2) as [one, two]:

            class Upper(asyncio.Protocol):
                def connection_made(self, transport: Any) -> None:
                    self.transport = transport
                    transport.write(b"ready")

                def data_received(self, data: bytes) -> None:
                    self.transport.write(data.upper())

            class Collect(asyncio.Protocol):
                def __init__(self) -> None:
                    self.got = bytearray()
                    self.changed = asyncio.Event()

                def data_received(self, data: bytes) -> None:
                    self.got += data
                    self.changed.set()

            seen: list[Any] = []

            def handler(node: NodeId, preamble: bytes, transport: asyncio.Transport) -> Any:
                if preamble == b"no":
                    raise NetworkError("not now", "57P03")
                seen.append((node, preamble, transport.get_extra_info("peername")[0]))
                return Upper

            error = await failure_of(one.network.open_splice(TWO, b"x", Collect))
            assert "takes no connections" in error.message
            two.network.on_splice(handler)
            error = await failure_of(one.network.open_splice(TWO, b"no", Collect))
            assert (error.message, error.sqlstate) == ("not now", "57P03")
            collect = Collect()
            transport = await one.network.open_splice(TWO, b"hello", lambda: collect)
            assert seen == [(1, b"hello", "127.0.0.1")]
            transport.write(b"x" * 1_000_000)
            while len(collect.got) < 1_000_005:
                collect.changed.clear()
                await collect.changed.wait()
            assert collect.got == b"ready" + b"X" * 1_000_000
            transport.close()

    run(loop, body)
