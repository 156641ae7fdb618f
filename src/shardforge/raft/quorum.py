"""What a majority, or two majorities at once, have decided.

Pure arithmetic over sets of voters. An empty set of voters agrees to everything, so that a plain
configuration is a joint one whose outgoing half is empty. Source: thesis sections 3.6 and 4.3.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from typing import Final

EVERYTHING: Final = 2**64 - 1
"""What nobody's consent allows: the index committed by an empty majority."""


class VoteResult(enum.Enum):
    """Where a ballot stands."""

    PENDING = "pending"
    LOST = "lost"
    WON = "won"


def majority_index(voters: Collection[int], acknowledged: Mapping[int, int]) -> int:
    """The largest index that a majority of the voters acknowledged; absent voters count as 0."""
    count = len(voters)
    if count == 0:
        return EVERYTHING
    indexes = sorted([acknowledged.get(voter, 0) for voter in voters])
    return indexes[count - (count // 2 + 1)]


def joint_index(
    incoming: Collection[int], outgoing: Collection[int], acknowledged: Mapping[int, int]
) -> int:
    """The largest index that both majorities acknowledged."""
    return min(majority_index(incoming, acknowledged), majority_index(outgoing, acknowledged))


def majority_vote(voters: Collection[int], votes: Mapping[int, bool]) -> VoteResult:
    """Whether a majority said yes, may still say yes, or cannot any more."""
    if not voters:
        return VoteResult.WON
    granted = sum(votes.get(voter) is True for voter in voters)
    missing = sum(voter not in votes for voter in voters)
    needed = len(voters) // 2 + 1
    if granted >= needed:
        return VoteResult.WON
    return VoteResult.PENDING if granted + missing >= needed else VoteResult.LOST


def joint_vote(
    incoming: Collection[int], outgoing: Collection[int], votes: Mapping[int, bool]
) -> VoteResult:
    """Won when both majorities won, lost as soon as one is."""
    halves = (majority_vote(incoming, votes), majority_vote(outgoing, votes))
    if VoteResult.LOST in halves:
        return VoteResult.LOST
    return VoteResult.PENDING if VoteResult.PENDING in halves else VoteResult.WON
