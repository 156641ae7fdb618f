"""The configuration in force, the progress of its members, and the votes of a ballot."""

from __future__ import annotations

from shardforge.raft import quorum
from shardforge.raft.confchange import Configuration
from shardforge.raft.progress import Inflights, Progress
from shardforge.raft.quorum import VoteResult


class Tracker:
    """Who is in the group and how far each one is.

    Invariant: `progress` has an entry for each member of `configuration` and for no one else, in id order.
    """

    __slots__ = ("_bytes_max", "_messages_max", "configuration", "progress", "single", "votes")

    def __init__(self, messages_max: int, bytes_max: int) -> None:
        self._messages_max = messages_max
        self._bytes_max = bytes_max
        self.configuration = Configuration()
        self.progress: dict[int, Progress] = {}
        self.votes: dict[int, bool] = {}
        self.single = 0
        """The voter that decides alone, if there is one."""

    def new_progress(self, match: int, next_index: int, *, is_learner: bool) -> Progress:
        """A member of whom nothing else is known."""
        inflights = Inflights(self._messages_max, self._bytes_max)
        return Progress(match, next_index, inflights, is_learner=is_learner)

    def switch_to(self, configuration: Configuration, last_index: int) -> None:
        """Put a configuration in force. Members that stay keep their progress."""
        progress = {}
        for node in sorted(configuration.members):
            is_learner = node in configuration.learners
            known = self.progress.get(node)
            if known is None:
                known = self.new_progress(0, max(last_index, 1), is_learner=is_learner)
                known.recently_active = True
            known.is_learner = is_learner
            progress[node] = known
        self.configuration = configuration
        self.progress = progress
        alone = len(configuration.incoming) == 1 and not configuration.outgoing
        self.single = next(iter(configuration.incoming)) if alone else 0

    def reset(self, last_index: int, own_id: int) -> None:
        """Forget what earlier terms knew."""
        self.votes = {}
        for node, known in self.progress.items():
            match = last_index if node == own_id else 0
            self.progress[node] = self.new_progress(
                match, last_index + 1, is_learner=known.is_learner
            )

    def committed(self) -> int:
        """The largest index on a quorum of logs."""
        if self.single:
            return self.progress[self.single].match
        matches = {node: progress.match for node, progress in self.progress.items()}
        configuration = self.configuration
        return quorum.joint_index(configuration.incoming, configuration.outgoing, matches)

    def lease_from(self) -> int:
        """The latest sending time that a quorum has answered."""
        answered = {node: progress.lease_from for node, progress in self.progress.items()}
        configuration = self.configuration
        return quorum.joint_index(configuration.incoming, configuration.outgoing, answered)

    def tally(self) -> VoteResult:
        """Where the present ballot stands."""
        return self._tally(self.votes)

    def is_won(self, votes: dict[int, bool]) -> bool:
        """Whether a quorum said yes."""
        return self._tally(votes) is VoteResult.WON

    def _tally(self, votes: dict[int, bool]) -> VoteResult:
        return quorum.joint_vote(self.configuration.incoming, self.configuration.outgoing, votes)

    def quorum_active(self) -> bool:
        """Whether a quorum of voters was heard of since the last check."""
        active = {
            node: known.recently_active
            for node, known in self.progress.items()
            if not known.is_learner
        }
        return self.is_won(active)
