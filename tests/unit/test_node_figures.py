"""What every node tells monitoring, whether it serves or not, and that the counters count."""

from __future__ import annotations

import asyncio
import threading

from shardforge.adapters.metrics import metrics_text
from shardforge.ids import NodeId
from shardforge.node import Node
from shardforge.node.figures import asked_of
from shardforge.telemetry import Labelled
from tests.inprocess import run, session_of
from tests.unit.test_node_tenures import Three, on_three, until

SHARDS = {0, 1, 2, 3}


def parsed(node: Node) -> dict[str, float]:
    lines = metrics_text(node.telemetry, node.metrics).splitlines()
    return {
        name: float(value)
        for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    }


def test_every_node_tells_of_the_cluster():
    async def test(three: Three) -> None:
        serving = await three.serving()
        await until(lambda: serving.governing is not None)
        await until(lambda: all(not node.metrics()["read_only"] for node in three.nodes.values()))
        await until(lambda: not serving.metrics()["under_replicated_shards"])
        await run(session_of(serving), "CREATE TABLE t (id int PRIMARY KEY)")
        for node in three.nodes.values():
            figures = parsed(node)
            assert figures["shardforge_unavailable_shards"] == 0
            assert figures["shardforge_under_replicated_shards"] == 0
            assert figures["shardforge_log_fsyncs_total"] > 0
            assert figures["shardforge_peer_frames_dropped_total"] == 0
            for shard in SHARDS:
                assert figures[f'shardforge_shard_leader{{shard="{shard}"}}'] == serving.id
                assert figures[f'shardforge_shard_applied_index{{shard="{shard}"}}'] > 0
                assert f'shardforge_engine_keys{{shard="{shard}"}}' in figures
            assert ("shardforge_locks_held" in figures) == (node is serving), "the store's"
        followers = {str(n) for n in three.nodes if n != serving.id}
        await until(lambda: lags(serving) == {(str(s), n): 0 for s in SHARDS for n in followers})
        for number in followers:
            assert not lags(three.nodes[int(number)])

    on_three(test)


def lags(node: Node) -> dict[tuple[str, ...], float]:
    found = node.metrics()["replication_lag_entries"]
    assert isinstance(found, Labelled)
    assert found.labels == ("shard", "node")
    return dict(found.samples)


def test_elections_are_counted_where_they_are_won_and_where_they_are_heard_of():
    async def test(three: Three) -> None:
        serving = await three.serving()
        won = serving.metrics()["elections_won_total"]
        assert won == len(SHARDS)
        assert sum(n.metrics()["elections_won_total"] for n in three.nodes.values()) >= won
        assert serving.metrics()["elections_started_total"] >= won
        other = next(n for n in three.nodes.values() if n is not serving)
        third = next(n for n in three.nodes.values() if n not in (serving, other))
        before = {n.id: n.metrics()["leader_changes_total"] for n in three.nodes.values()}
        assert serving.leading is not None
        await serving.leading.give_way(other.id, 5)
        await until(lambda: other.instance is not None)
        assert other.metrics()["elections_won_total"] >= len(SHARDS)
        await until(lambda: third.metrics()["leader_changes_total"] >= before[third.id] + 4)
        serving.leading.resume()

    on_three(test)


def test_without_a_majority_a_node_reads_only(monkeypatch):
    monkeypatch.setattr("shardforge.node.leading.STANDBY_SECONDS", 0.3)

    async def test(three: Three) -> None:
        serving = await three.serving()
        await until(lambda: serving.governing is not None)
        cut = next(n for n in three.nodes.values() if n is not serving)
        await until(lambda: not cut.metrics()["read_only"])
        three.fabric.isolate(cut.id)
        await until(lambda: cut.metrics()["read_only"])
        assert cut.operations is not None
        status = await cut.operations.status()
        figures = cut.metrics()
        assert status["read_only"]
        for name in ("under_replicated_shards", "unavailable_shards"):
            assert status[name] == figures[name] == len(SHARDS)
        assert not serving.metrics()["read_only"]
        three.fabric.cut.clear()
        await until(lambda: not cut.metrics()["read_only"])

    on_three(test)


def test_a_snapshot_is_counted_at_both_ends():
    async def test(three: Three) -> None:
        serving = await three.serving()
        await until(lambda: serving.governing is not None)
        governing, other = serving.governing, serving.id % 3 + 1
        assert governing is not None
        assert serving.host is not None
        taker = three.nodes[other]
        assert taker.host is not None
        shard = serving.host.replicas[1]
        at_first = (
            serving.metrics()["snapshots_sent_total"],
            taker.metrics()["snapshots_received_total"],
        )
        assert at_first == (0, 0)
        pin = int(shard._pin())
        piece, last = await shard.snapshot_piece(pin, b"", NodeId(2))
        assert last, "it is small"
        staged = taker.host.replicas[1]._files.stage()
        await taker.host._with.fetch.pull(NodeId(serving.id), shard.id, pin, staged)
        sent, received = serving.metrics(), taker.metrics()
        assert sent["snapshots_sent_total"] == received["snapshots_received_total"] == 1
        assert sent["snapshot_bytes_sent_total"] == len(piece)
        assert received["snapshot_bytes_received_total"] == len(piece)

    on_three(test)


def test_other_threads_get_figures_of_the_loop_or_none_soon(monkeypatch, caplog):
    monkeypatch.setattr("shardforge.node.figures.PATIENCE_SECONDS", 0.05)

    async def test() -> None:
        loop = asyncio.get_running_loop()
        ask = asked_of(loop, lambda: {"thread": threading.get_ident()})
        assert await asyncio.to_thread(ask) == {"thread": threading.get_ident()}

    asyncio.run(test())
    stopped = asyncio.new_event_loop()
    with caplog.at_level("WARNING"):
        assert asked_of(stopped, dict)() == {}
    assert "were not had" in caplog.text
    stopped.run_until_complete(asyncio.sleep(0))
    stopped.close()
