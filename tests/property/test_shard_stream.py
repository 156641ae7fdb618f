"""Numbered commands of a tenure: each is applied once and in order, whatever is lost, repeated, late or led anew."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest

from shardforge.errors import NetworkError
from shardforge.ids import ShardId, Timestamp, TxnId
from shardforge.shard.application import Application
from shardforge.shard.command import Applied, Begin, Commit, Numbered, Outcome, Run, applied_of
from shardforge.shard.descriptor import ShardDescriptor, Span
from shardforge.shard.remote.calls import Reached
from shardforge.shard.remote.stream import Stream
from shardforge.storage import mvcc
from shardforge.storage.memory import MemoryEngine

TENURE = 9
SHARD = ShardDescriptor(ShardId(1), Span(b"", b"s"))
CUT = ShardDescriptor(ShardId(1), Span(b"h", b"s"), 2)
COMMANDS = 60


def commit(number: int, tenure: int = TENURE, key: bytes = b"h") -> Commit:
    return Commit(TxnId(number), Timestamp(number), tenure, [(key + b"%d" % number, b"x")])


class Shard:
    """A state machine, and a leader that forgets, repeats, and answers late or not at all."""

    def __init__(self, choice: random.Random) -> None:
        self.engine = MemoryEngine()
        self.choice = choice
        self.state = Applied(0, 0)
        self.late: list[Run] = []
        self.apply(Begin(TENURE))

    def apply(self, command: Begin | Run) -> Outcome:
        application = Application(self.engine, 1, before=self.state, shard=CUT)
        outcome = application.apply(command)
        index = self.state.index + 1
        self.engine.write(application.finish(index))
        self.state = application.state(index)
        assert applied_of(self.engine) == self.state
        return outcome

    async def submit(self, first: int, commands: Sequence[Numbered]) -> Reached | None:
        run = Run(TENURE, first, commands)
        await asyncio.sleep(self.choice.choice([0, 0, 0.001, 0.01]))
        fate = self.choice.random()
        if fate < 0.1:
            raise NetworkError("lost on the way")
        if fate < 0.2:
            self.late.append(run)
            return None
        if self.late and fate < 0.4:
            self.apply(self.late.pop(self.choice.randrange(len(self.late))))
        self.apply(run)
        if fate > 0.9:
            self.apply(run)
            raise NetworkError("the answer is lost")
        return self.reached()

    async def where(self) -> Reached | None:
        await asyncio.sleep(0.001)
        return self.reached() if self.choice.random() < 0.7 else None

    def reached(self) -> Reached:
        state = self.state
        return Reached(state.index, state.number, state.refused, SHARD)


@pytest.mark.parametrize("seed", range(40))
def test_each_command_is_applied_once_and_in_order(seed: int) -> None:
    choice = random.Random(seed)
    outcomes: dict[int, Outcome] = {}
    learned: list[int] = []

    async def run() -> Shard:
        shard = Shard(choice)

        def new_stream() -> Stream:
            stream = Stream(
                shard.submit, shard.where, lambda _: None, lambda c: learned.append(c.txn)
            )
            stream.begin(shard.state.number)
            return stream

        stream = new_stream()

        def done(number: int, outcome: Outcome) -> None:
            assert number not in outcomes, "told once"
            outcomes[number] = outcome

        for number in range(1, COMMANDS + 1):
            command = commit(number, key=b"g" if number % 10 == 0 else b"h")
            order = stream.defer if choice.random() < 0.2 else stream.propose
            order(command, lambda outcome, number=number: done(number, outcome))
            if choice.random() < 0.5:
                await asyncio.sleep(choice.choice([0, 0.002]))
            if choice.random() < 0.1 and stream.hold():  # led here in between, and elsewhere again
                stream.close()
                stream = new_stream()
        await asyncio.wait_for(stream.idle(), 20)
        return shard

    shard = asyncio.run(run())
    assert len(outcomes) == COMMANDS
    refused = {number for number, outcome in outcomes.items() if outcome is Outcome.REFUSED}
    assert refused == {number for number in range(1, COMMANDS + 1) if number % 10 == 0}
    versions = list(mvcc.versions_in(shard.engine, b"h", b"s", 0, 1 << 62))
    assert len(versions) == COMMANDS - len(refused)
    assert sorted(learned) == sorted(set(range(1, COMMANDS + 1)) - refused)
    assert shard.state.number == COMMANDS


def test_the_end_of_a_tenure_leaves_what_is_under_way_unknown() -> None:
    async def run() -> list[Outcome]:
        told: list[Outcome] = []
        never: asyncio.Future[Reached | None] = asyncio.get_running_loop().create_future()

        async def submit(_first: int, _commands: Sequence[Numbered]) -> Reached | None:
            return await never

        async def where() -> Reached | None:
            return await never

        stream = Stream(submit, where, lambda _: None, lambda _: None)
        stream.begin(0)
        stream.propose(commit(1), told.append)
        await asyncio.sleep(0)
        stream.propose(commit(2), told.append)
        stream.defer(commit(3), told.append)
        stream.close()
        stream.propose(commit(4), told.append)
        await asyncio.wait_for(stream.idle(), 1)
        return told

    assert asyncio.run(run()) == [Outcome.UNKNOWN] * 4


def test_an_older_tenure_is_refused_and_a_younger_begins_to_count_anew() -> None:
    shard = Shard(random.Random(0))
    assert shard.apply(Run(TENURE, 1, [commit(1)])) is Outcome.APPLIED
    assert shard.apply(Run(TENURE - 1, 2, [commit(2, TENURE - 1)])) is Outcome.REFUSED
    assert shard.apply(Begin(TENURE - 1)) is Outcome.REFUSED
    assert shard.apply(Begin(TENURE)) is Outcome.APPLIED
    assert shard.state.number == 1
    assert shard.apply(Begin(TENURE + 1)) is Outcome.APPLIED
    assert (shard.state.tenure, shard.state.number) == (TENURE + 1, 0)
    assert shard.apply(Run(TENURE, 2, [commit(2)])) is Outcome.REFUSED


def test_what_comes_before_its_predecessor_is_refused_as_a_whole() -> None:
    shard = Shard(random.Random(0))
    assert shard.apply(Run(TENURE, 2, [commit(2)])) is Outcome.REFUSED
    assert shard.state.number == 0


def test_a_stream_that_is_held_or_has_not_begun_sends_nothing() -> None:
    async def run() -> list[tuple[int, int]]:
        sent: list[tuple[int, int]] = []

        async def submit(first: int, commands: Sequence[Numbered]) -> Reached | None:
            sent.append((first, len(commands)))
            return Reached(9, first + len(commands) - 1, (), SHARD)

        async def where() -> Reached | None:
            raise AssertionError("nothing is in doubt")

        stream = Stream(submit, where, lambda _: None, lambda _: None)
        assert stream.hold()
        stream.release()
        stream.propose(commit(1), lambda _: None)
        await asyncio.sleep(0.01)
        assert not sent
        assert not stream.hold(), "one waits"
        stream.begin(7)  # it was led here in between: 7 commands are older
        await stream.idle()
        assert stream.hold()
        stream.propose(commit(2), lambda _: None)
        await asyncio.sleep(0.01)
        assert sent == [(8, 1)]
        stream.release()
        await stream.idle()
        return sent

    assert asyncio.run(run()) == [(8, 1), (9, 1)]
