"""Every schedule of a small group, by breadth-first search, with Raft's invariants checked in every state.

A state is the voters, the set of messages in flight, what may still go wrong, and what is known to have happened. Any
message may be delivered next: one that never is, is a lost one. Nodes crash, lose what they had not synced, and
restart. Voters and messages are numbered when first seen, and what an action makes of a voter is worked out once, so
that a step of the search is a step among tuples of numbers. States that differ by a renaming of interchangeable nodes
are one state. Visited states are kept as 64-bit hashes.
Checked: election safety, log matching, leader completeness, state machine safety (thesis figure 3.2).
"""

from __future__ import annotations

import itertools
import pickle
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from shardforge.raft.confchange import ConfChange
from shardforge.raft.messages import NO_NODE, Message, MessageKind
from tests.property.raft_explorer import check
from tests.property.raft_voter import BASE, NEVER, Voter, renamed

Action = tuple[str, int]
"""What happens to a voter; for "step" with a message's number, for "transfer" with a node."""
Budget = tuple[int, ...]
BUDGETED = ("campaign", "propose", "crash", "repeat", "change", "transfer", "compact", "heartbeat")


class Scope(NamedTuple):
    """How far the search goes: how often each thing may happen, from which beginning."""

    voters: tuple[int, ...] = (1, 2, 3)
    led: bool = False
    """Node 1 leads already, and its first entry is applied everywhere."""
    campaign: int = 0
    propose: int = 0
    crash: int = 0
    repeat: int = 0
    change: int = 0
    transfer: int = 0
    compact: int = 0
    heartbeat: int = 0
    membership: ConfChange = ConfChange()
    """The change that may be proposed."""
    campaigners: tuple[int, ...] = (1, 2, 3)
    pre_vote: bool = False
    entry_at_a_time: bool = False
    keep_stale: bool = False
    """Deliver even what is of a term that the receiver has durably left, instead of trusting that it is ignored."""
    interchangeable: tuple[int, ...] = ()
    """Nodes that begin alike, and that this scope nowhere tells apart."""
    depth: int = NEVER
    """How many steps deep the search goes; by default until nothing is left to happen."""

    @property
    def budget(self) -> Budget:
        """How often each of BUDGETED may happen."""
        return tuple(getattr(self, name) for name in BUDGETED)


class Known(NamedTuple):
    """What is known to have happened, whoever has forgotten it since."""

    leaders: tuple[tuple[int, int], ...] = ()
    """The leader of each term that had one."""
    chosen: tuple[tuple[int, int, bytes, int], ...] = ()
    """Committed entries: index, term, data, and the term in which they were known to be committed."""


class State(NamedTuple):
    """One point of the search, in numbers."""

    voters: tuple[int, ...]
    network: frozenset[int]
    budget: Budget
    known: int


class Seen(NamedTuple):
    """A distinct voter: how to bring it back, and what the search asks of it."""

    pickled: bytes
    names: tuple[int, ...]
    """The numbers of its fingerprints, by renaming."""
    term: int
    durable_term: int
    leads: bool
    writing: bool
    log: dict[int, tuple[int, bytes]]
    commit: int


class Search:
    """A breadth-first search of one scope. `run` raises AssertionError at the first state that breaks a rule."""

    def __init__(self, scope: Scope, *, traced: bool = False) -> None:
        self.scope = scope
        self.visited: set[int] = set()
        self.depth = 0
        self._origins: dict[int, tuple[int, str]] | None = {} if traced else None
        self._renamings = list(_renamings(scope))
        self._messages: list[Message] = []
        self._message_numbers: dict[Message, int] = {}
        self._message_names: list[tuple[int, ...]] = []
        self._fingerprints: dict[object, int] = {}
        self._voters: list[Seen] = []
        self._voter_numbers: dict[int, int] = {}
        self._known: list[Known] = []
        self._known_numbers: dict[Known, int] = {}
        self._known_names: list[tuple[Known, ...]] = []
        self._outcomes: dict[tuple[int, Action, bool], tuple[int, tuple[int, ...]]] = {}
        self._learnt: dict[tuple[int, int, int], int] = {}
        self._agreed: set[tuple[int, int]] = set()

    def run(self) -> None:
        """Visit every state."""
        level = [self._beginning()]
        self.visited = {self._key(level[0])}
        while level and self.depth < self.scope.depth:
            self.depth += 1
            level = [after for state in level for after in self._new_after(state)]

    @property
    def kinds(self) -> set[MessageKind]:
        """What kinds of messages were sent."""
        return {message.kind for message in self._messages}

    def _new_after(self, state: State) -> Iterator[State]:
        for at, action, budget in self._possible(state):
            try:
                after = self._after(state, at, action, budget)
            except AssertionError as error:
                for line in self._way_to(state, at, action):
                    error.add_note(line)
                raise
            key = self._key(after)
            if key not in self.visited:
                self.visited.add(key)
                if self._origins is not None:
                    self._origins[key] = (self._key(state), self._words(at, action))
                yield after

    def _words(self, at: int, action: Action) -> str:
        name, what = action
        detail = self._messages[what] if name in ("step", "repeat") else what or ""
        return f"{at + 1}: {name} {detail}"

    def _way_to(self, state: State, at: int, action: Action) -> list[str]:
        """How a state came about, up to renaming, if the search keeps that."""
        lines = [self._words(at, action)]
        origin = (self._origins or {}).get(self._key(state))
        while origin is not None and self._origins is not None:
            lines.append(origin[1])
            origin = self._origins.get(origin[0])
        return lines[::-1]

    # Numbering what is seen.

    def _message(self, message: Message) -> int:
        number = self._message_numbers.get(message)
        if number is None:
            number = self._message_numbers[message] = len(self._messages)
            self._messages.append(message)
            self._message_names.append(())
            self._message_names[number] = tuple(
                self._message(renamed(message, names)) for names in self._renamings
            )
        return number

    def _voter(self, voter: Voter) -> int:
        numbers = self._fingerprints
        names = tuple(
            numbers.setdefault(voter.fingerprint(names), len(numbers)) for names in self._renamings
        )
        number = self._voter_numbers.get(names[0])
        if number is None:
            number = self._voter_numbers[names[0]] = len(self._voters)
            raw = voter.raw
            log = {index: (term, data) for index, term, data in voter.log}
            self._voters.append(
                Seen(
                    voter.pickled(), names, raw.term, voter.durable.hard_state.term, raw.is_leader,
                    voter.writing is not None, log, raw.commit_index,
                )
            )  # fmt: skip
        return number

    def _knowledge(self, known: Known) -> int:
        number = self._known_numbers.get(known)
        if number is None:
            number = self._known_numbers[known] = len(self._known)
            self._known.append(known)
            self._known_names.append(
                tuple(
                    Known(tuple((term, names[lead]) for term, lead in known.leaders), known.chosen)
                    for names in self._renamings
                )
            )
        return number

    def _key(self, state: State) -> int:
        """A hash that is the same for all renamings of a state."""
        numbers, network, budget, known = state
        voters = [self._voters[number].names for number in numbers]
        messages = [self._message_names[number] for number in network]
        knowledge = self._known_names[known]
        return min([
            hash((
                frozenset([names[way] for names in voters]),
                frozenset([names[way] for names in messages]),
                budget,
                knowledge[way],
            ))
            for way in range(len(self._renamings))
        ])  # fmt: skip

    # What may happen.

    def _beginning(self) -> State:
        scope = self.scope
        options = {
            "pre_vote": scope.pre_vote,
            "message_bytes_max": 1 if scope.entry_at_a_time else 1 << 20,
        }
        voters = [Voter(node, scope.voters, options) for node in scope.voters]
        if scope.led:
            _elect_first(voters)
        state = State(
            tuple(map(self._voter, voters)), frozenset(), scope.budget, self._knowledge(Known())
        )
        for at, number in enumerate(state.voters):
            state = state._replace(known=self._learn(state.known, at, number))
        return state

    def _possible(self, state: State) -> Iterator[tuple[int, Action, Budget]]:
        """Whom something may happen to, what, and what may happen after it."""
        left = state.budget
        spent = {
            name: (*left[:at], left[at] - 1, *left[at + 1 :])
            for at, name in enumerate(BUDGETED)
            if left[at]
        }
        for message in state.network:
            at = self._messages[message].to - 1
            yield at, ("step", message), left
            if "repeat" in spent:
                yield at, ("repeat", message), spent["repeat"]
        for at, number in enumerate(state.voters):
            voter = self._voters[number]
            if voter.writing:
                yield at, ("sync", 0), left
            for name in _LEADERS if voter.leads else _FOLLOWERS:
                if name in spent and (name != "campaign" or at + 1 in self.scope.campaigners):
                    yield at, (name, 0), spent[name]
            if voter.leads and "transfer" in spent:
                for to in self.scope.voters:
                    if to != at + 1:
                        yield at, ("transfer", to), spent["transfer"]

    def _after(self, state: State, at: int, action: Action, budget: Budget) -> State:
        """The state after an action."""
        before = state.voters[at]
        # With no crash to come, the end of a write makes no difference that the delivery of its messages does not.
        sync = action[0] == "sync" or not budget[_CRASH]
        outcome = self._outcomes.get((before, action, sync))
        if outcome is None:
            outcome = self._outcomes[before, action, sync] = self._act(before, action, sync=sync)
        after, sent = outcome
        network = state.network
        if action[0] == "step":
            network = network - {action[1]}
        network = network.union(sent)
        if after == before:
            return State(state.voters, network, budget, state.known)
        voters = (*state.voters[:at], after, *state.voters[at + 1 :])
        for other in voters:
            self._check_agree(after, other)
        known = self._learn(state.known, at, after)
        if known != state.known:
            for place, number in enumerate(voters):
                self._learn(known, place, number)
        return State(voters, self._without_stale(network, voters), budget, known)

    def _act(self, number: int, action: Action, *, sync: bool) -> tuple[int, tuple[int, ...]]:
        """What an action makes of a voter: its new number, and the messages that leave."""
        voter: Voter = pickle.loads(self._voters[number].pickled)
        name, what = action
        raw = voter.raw
        if name in ("step", "repeat"):
            raw.step(self._messages[what])
        elif name == "campaign":
            raw.campaign()
        elif name == "propose":
            raw.propose(b"%2d" % raw.raft.log.last_index)
        elif name == "change":
            raw.propose_conf_change(self.scope.membership)
        elif name == "heartbeat":
            raw.tick()
        elif name == "transfer":
            raw.transfer_leader(what)
        elif name == "crash":
            voter.restart()
        elif name == "compact":
            voter.compact()
        left = voter.settle(sync=sync)
        return self._voter(voter), tuple(self._message(message) for message in left)

    def _without_stale(self, network: frozenset[int], voters: tuple[int, ...]) -> frozenset[int]:
        """The messages that can still do anything: those of terms that their receivers durably left cannot."""
        if self.scope.pre_vote or self.scope.keep_stale:
            return network  # some stale messages are answered then
        messages = self._messages
        return frozenset([
            number for number in network
            if messages[number].term >= self._voters[voters[messages[number].to - 1]].durable_term
        ])  # fmt: skip

    # Whether it may.

    def _check_agree(self, one: int, other: int) -> None:
        """Log matching: an index and a term name one entry, with one history."""
        if one == other or (one, other) in self._agreed:
            return
        first, second = self._voters[one].log, self._voters[other].log
        shared = first.keys() & second.keys()
        same = max((index for index in shared if first[index][0] == second[index][0]), default=0)
        check(
            all(first[index] == second[index] for index in shared if index <= same),
            f"two histories up to {same}: {first} and {second}",
        )
        self._agreed.add((one, other))

    def _learn(self, known: int, at: int, number: int) -> int:
        """What is known once a voter is seen so; that it may be so."""
        learnt = self._learnt.get((known, at, number))
        if learnt is None:
            after = _learn(self._known[known], at + 1, self._voters[number])
            learnt = self._learnt[known, at, number] = self._knowledge(after)
        return learnt


_LEADERS = ("propose", "change", "heartbeat", "crash", "compact")
_FOLLOWERS = ("campaign", "crash", "compact")
_CRASH = BUDGETED.index("crash")


def _learn(known: Known, node: int, voter: Seen) -> Known:
    """Election safety, state machine safety, leader completeness."""
    leaders = dict(known.leaders)
    chosen = list(known.chosen)
    for index, term, data, _ in chosen:
        if index <= voter.commit and index in voter.log:
            found = voter.log[index]
            check(
                found == (term, data),
                f"two entries are committed at {index}: {(term, data)}, {found}",
            )
    new = range(BASE + 1 + len(chosen), voter.commit + 1)
    chosen += [(index, *voter.log[index], voter.term) for index in new]
    if voter.leads:
        first = leaders.setdefault(voter.term, node)
        check(first == node, f"two leaders in term {voter.term}: {first} and {node}")
        oldest = min(voter.log, default=NEVER)
        for index, term, data, by in chosen:
            has = voter.log.get(index) == (term, data)
            check(
                has or index < oldest or voter.term < by,
                f"leader {node} of term {voter.term} lacks committed entry {index}",
            )
    return Known(tuple(sorted(leaders.items())), tuple(chosen))


def _renamings(scope: Scope) -> Iterator[dict[int, int]]:
    """All ways to call the nodes; the first one is the names that they have."""
    same = {node: node for node in (NO_NODE, *scope.voters)}
    alike = scope.interchangeable
    for order in itertools.permutations(alike):
        yield {**same, **dict(zip(alike, order, strict=True))}


def _elect_first(voters: list[Voter]) -> None:
    """Let node 1 lead, and everybody apply its first entry."""
    voters[0].raw.campaign()
    waiting = deque(voters[0].settle(sync=True))
    while waiting:
        message = waiting.popleft()
        receiver = voters[message.to - 1]
        receiver.raw.step(message)
        waiting += receiver.settle(sync=True)


def explore(scope: Scope) -> Search:
    """Search a scope; what breaks a rule is raised with the shortest way to it."""
    search = Search(scope)
    try:
        search.run()
    except AssertionError:
        Search(scope, traced=True).run()  # once more, noting the way: that costs memory
        raise
    return search
