"""What a crash left half done is finished; no record goes before all of its intents are resolved (rule R5)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from shardforge.adapters.clock import SystemClock
from shardforge.config import Config
from shardforge.ids import Timestamp, TxnId
from shardforge.shard.command import Command, CommitRecord, Outcome, Prepare, Resolve, record_of
from shardforge.shard.pending import Mark
from shardforge.txn import streamed
from shardforge.txn.participant import Participant
from shardforge.txn.store import Store, open_store
from tests.inline import Inline

CONFIG = replace(Config(), sharding=replace(Config().sharding, initial_shard_count=2))
ANCHOR = b"h\x00\x00a"
FAR = [b"h\x00\x3f%04d" % number for number in range(50)]
TXN = TxnId(99)


def on_store(test: Callable[[Store], Awaitable[None]]) -> None:
    async def run() -> None:
        store = await open_store(None, CONFIG, SystemClock(), Inline())
        try:
            await asyncio.wait_for(test(store), 5)
        finally:
            await store.close()

    asyncio.run(run())


async def done(participant: Participant, command: Command) -> Outcome:
    outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    participant.propose(command, outcome.set_result)
    return await outcome


async def committed_orphan(store: Store) -> tuple[Participant, Participant, Mark]:
    """Its coordinator died after the commit record: the anchor's shard, the other one, the mark there."""
    home, far = store.router.shard_of(ANCHOR), store.router.shard_of(FAR[0])
    assert home is not far
    timestamp = await store.oracle.next()
    values = dict.fromkeys(FAR, b"x")
    prepare = Prepare(TXN, timestamp, Timestamp(0), far.term, ANCHOR, list(values.items()))
    assert await done(far, prepare) is Outcome.APPLIED
    record = CommitRecord(TXN, timestamp, home.term, ANCHOR, (far.replica.id,), [(ANCHOR, b"x")])
    assert await done(home, record) is Outcome.APPLIED
    mark = Mark(TXN, Timestamp(0), FAR)
    mark.timestamp, mark.anchor, mark.orphan, mark.values = timestamp, ANCHOR, True, values
    assert far.pending.add(mark)
    return home, far, mark


def test_an_orphan_is_resolved_piece_by_piece(monkeypatch) -> None:
    monkeypatch.setattr(streamed, "KEYS_A_COMMAND", 20)
    sizes: list[int] = []

    async def test(store: Store) -> None:
        home, far, _ = await committed_orphan(store)
        propose = far.replica.propose

        def counted(command: Command, *rest) -> None:
            if isinstance(command, Resolve):
                sizes.append(len(command.keys))
            propose(command, *rest)

        monkeypatch.setattr(far.replica, "propose", counted)
        await store.resolver.settle_all()
        assert sizes == [20, 20, 10]
        assert [await store.coordinator.read_latest(key) for key in FAR] == [b"x"] * len(FAR)
        assert record_of(home.replica.engine, ANCHOR, TXN) is None

    on_store(test)


def test_the_record_stays_while_a_shard_with_intents_is_not_led_here() -> None:
    async def test(store: Store) -> None:
        home, far, mark = await committed_orphan(store)
        term = far.replica.serving_term
        far.pending.clear()
        far.replica.serving_term = 0
        await store.resolver.settle(TXN, ANCHOR)
        await store.resolver.settle_all()
        assert record_of(home.replica.engine, ANCHOR, TXN) is not None
        far.replica.serving_term = term
        assert far.pending.add(mark)
        await store.resolver.settle_all()
        assert record_of(home.replica.engine, ANCHOR, TXN) is None
        assert await store.coordinator.read_latest(FAR[0]) == b"x"

    on_store(test)
