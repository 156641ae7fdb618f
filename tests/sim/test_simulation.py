"""Seeded simulations of whole clusters under mixed faults, and proof that they would notice a broken build.

SHARDFORGE_SIM_SEEDS sets how many runs there are (default 200), from SHARDFORGE_SIM_FIRST_SEED on.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

import pytest

from shardforge.ids import INFINITY, Timestamp
from shardforge.raft.messages import Message, MessageKind
from shardforge.raft.state import Raft
from shardforge.shard.log import MemoryLog
from shardforge.shard.pending import Mark
from shardforge.sim.faults import KINDS
from shardforge.sim.run import Report, simulate
from shardforge.sim.workloads import WORKLOADS
from shardforge.sql.catalog.following import FollowerCatalog
from shardforge.sql.session import commit_key
from shardforge.sql.session.past import Past
from shardforge.txn import closed, reads
from shardforge.txn.commit import CommitProcess
from shardforge.txn.feed import Feed
from shardforge.txn.followed import FollowedShard
from shardforge.txn.lease import Lease
from shardforge.txn.participant import Participant
from shardforge.txn.transaction import Transaction

SEEDS = int(os.environ.get("SHARDFORGE_SIM_SEEDS", "200"))
FIRST_SEED = int(os.environ.get("SHARDFORGE_SIM_FIRST_SEED", "1"))
BATCH = 10
MINUTES = 0.25
NODES = (3, 5, 3, 7)
"""Sizes in turn; a shard has three replicas in each."""


def _simulate(seed: int) -> Report:
    names = list(WORKLOADS)
    return simulate(
        seed, minutes=MINUTES, workload=names[seed % len(names)], nodes=NODES[seed // 5 % 4]
    )


@pytest.mark.parametrize("first", range(FIRST_SEED, FIRST_SEED + SEEDS, BATCH))
def test_nothing_is_wrong_under_any_fault(first: int) -> None:
    answered = []
    for seed in range(first, min(first + BATCH, FIRST_SEED + SEEDS)):
        report = _simulate(seed)
        assert not report.violations, report
        assert report.answers["ok"] > 10, report
        answered.append(report.answers["ok"])
    assert sum(answered) > 50 * len(answered), "where little is done, little can go wrong"


FOUND = [
    # An INSERT got the table lock of a CREATE INDEX whose outcome was not known yet: its row was not in the index.
    (3, "ddl", 3),
    # A leadership lost while a tenure began was not asked for again: nobody served any more.
    (1398, "counter", 7),
    # A shard came to be led by the serving node before it had learnt what an older tenure had prepared there.
    (13, "once", 3),
]
"""Seeds that once found a mistake: (seed, workload, nodes)."""


@pytest.mark.parametrize(("seed", "workload", "nodes"), FOUND)
def test_what_was_found_stays_mended(seed: int, workload: str, nodes: int) -> None:
    assert not simulate(seed, minutes=MINUTES, workload=workload, nodes=nodes).violations


def test_without_faults_nobody_is_refused_and_nothing_is_unknown() -> None:
    report = simulate(1, minutes=MINUTES, workload="counter", faults=())
    assert not report.violations
    assert set(report.answers) == {"ok"}


@pytest.mark.parametrize("workload", ["counter", "ddl"])
def test_asynchronous_replication_loses_nothing_without_faults(workload: str) -> None:
    report = simulate(2, minutes=MINUTES, workload=workload, faults=(), asynchronous=True)
    assert not report.violations


def test_asynchronous_replication_keeps_transactions_whole_under_any_fault() -> None:
    # Seed 2 of the bank: a node that was cut off and came back read on in the past, of which versions were removed.
    for seed in range(8):
        for workload in ("bank", "once"):
            report = simulate(seed, minutes=MINUTES, workload=workload, asynchronous=True)
            assert not report.violations, report


def test_asynchronous_replication_loses_nothing_that_anybody_saw() -> None:
    # Seed 20213 with four nodes: what was lost was due to followers' readers all the same, a false alarm.
    for seed, faults in ((20213, tuple(KINDS)), *((s, ("partition", "crash")) for s in range(6))):
        report = simulate(
            seed, minutes=MINUTES, workload="followed", nodes=4, faults=faults, asynchronous=True
        )
        assert not report.violations, report


def test_asynchronous_replication_may_lose_with_its_leader_what_it_acknowledged() -> None:
    for seed in range(40):
        if simulate(
            seed, minutes=MINUTES, workload="counter", faults=("partition",), asynchronous=True
        ).violations:
            return
    pytest.fail("COMMIT waits for a majority all the same")


def test_a_seed_names_one_run_in_every_process() -> None:
    program = (
        "from shardforge.sim.run import simulate\n"
        "for work in ('append', 'ddl'):\n"
        "    print(simulate(7, minutes=0.1, workload=work, nodes=5))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, "PYTHONHASHSEED": salt},
            check=True, capture_output=True, text=True, timeout=120,
        ).stdout
        for salt in ("0", "4711")
    }  # fmt: skip
    assert len(said) == 1
    assert "trace=" in said.pop()


@pytest.mark.parametrize("first", range(1, 25, 6))
def test_transactions_that_stream_their_writes_are_like_others(first: int) -> None:
    names = sorted(WORKLOADS)
    for seed in range(first, first + 6):
        workload, nodes = names[seed % len(names)], NODES[seed % 4]
        report = simulate(seed, minutes=MINUTES, workload=workload, nodes=nodes, streaming=True)
        assert not report.violations, report
        assert report.answers["ok"] > 10, report


# ---- broken builds -----------------------------------------------------------------------------------


def _acknowledge_at_once(raft: Raft, to: int, index: int, sent_at: int = 0) -> None:
    raft.messages.append(
        Message(MessageKind.APPEND_RESPONSE, to, raft.id, raft.term, index, sent_at=sent_at)
    )


async def _resolve_now(feed: Feed) -> Timestamp:
    return await feed._coordinator.oracle.next()


async def _claim_and_forget(transaction: Transaction, key: bytes) -> None:
    await transaction.claim(key)


UNSPLIT = tuple(kind for kind in KINDS if kind != "split")
"""These builds are broken elsewhere; one whose answers run ahead of its disk answers forever once replicas split."""


async def _without_validation(_commit: CommitProcess) -> None:
    """Believe everything that was read."""


MUTANTS: dict[str, tuple[str, Sequence[str], AbstractContextManager[Any]]] = {
    "an fsync that does nothing": (
        "counter",
        ("power", "crash"),
        patch.object(MemoryLog, "sync", lambda log: log.last_index),
    ),
    "acknowledged before it is durable": (
        "counter",
        UNSPLIT,
        patch.object(Raft, "respond_to_append", _acknowledge_at_once),
    ),
    "a lease without a quorum": (
        "register",
        ("pause", "partition"),
        patch.object(Lease, "held", lambda _lease: True),
    ),
    "readers that ignore marks": (
        "bank",
        UNSPLIT,
        patch.object(Mark, "hides_from", lambda _mark, _timestamp: False),
    ),
    "commit keys that are not looked up": (
        "once",
        UNSPLIT,
        patch.object(commit_key, "claim", _claim_and_forget),
    ),
    "a feed that resolves over commits under way": (
        "fed-bank",
        UNSPLIT,
        patch.object(Feed, "resolve", _resolve_now),
    ),
    "closing over commits under way": (
        "followed",
        UNSPLIT,
        patch.object(closed, "_before_marks", lambda _replica: INFINITY),
    ),
    "reading at a closed timestamp before its entries are applied": (
        "followed",
        UNSPLIT,
        patch.object(closed, "_holds", lambda _applied, _closed: True),
    ),
    "reading where versions were collected": (
        "followed",
        UNSPLIT,
        patch.object(FollowedShard, "kept_from", Timestamp(0)),
    ),
    "a catalog that does not move on": (
        "followed",
        UNSPLIT,
        patch.object(FollowerCatalog, "_changed", lambda catalog, _timestamp: not catalog._as_of),
    ),
    "bounded readers that accept any age": (
        "followed",
        UNSPLIT,
        patch.object(Past, "_age_us_max", lambda _past: None),
    ),
    "no validation of what was read": (
        "append",
        UNSPLIT,
        patch.object(CommitProcess, "_validate", _without_validation),
    ),
}


async def _versions_only(_participant: Participant, _mark: Mark, _key: bytes) -> None:
    """Take it that a committed mark's intents are versions already."""


def test_intents_that_are_not_read_are_noticed() -> None:
    with patch.object(reads, "committed_by", _versions_only):
        for seed in range(20):
            if simulate(
                seed, minutes=MINUTES, workload="bank", faults=UNSPLIT, streaming=True
            ).violations:
                return
    pytest.fail("20 seeds found nothing wrong")


@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_build_is_noticed(name: str) -> None:
    workload, faults, broken = MUTANTS[name]
    with broken:
        for seed in range(60):
            if simulate(seed, minutes=MINUTES, workload=workload, faults=faults).violations:
                return
    pytest.fail("60 seeds found nothing wrong")
