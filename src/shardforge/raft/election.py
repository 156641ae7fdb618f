"""Who leads: campaigns, votes, and the pre-vote that keeps a returning node from disturbing.

A candidate's own vote is counted, like everyone's, only once it is durable. A transfer skips the pre-vote and
overrides promises made to the leader, which has given up its lease before.
Source: thesis sections 3.4, 3.10, 4.2.3, 9.6; etcd-io/raft.
"""

from __future__ import annotations

import enum

from shardforge.raft import replication
from shardforge.raft.messages import NO_NODE, Entry, Message, MessageKind
from shardforge.raft.quorum import VoteResult
from shardforge.raft.state import Raft, Role

_FORCED = b"transfer"
"""The context of a vote request that overrides promises."""


class Campaign(enum.Enum):
    """Why a node stands."""

    PRE_ELECTION = "pre-election"
    ELECTION = "election"
    TRANSFER = "transfer"


def tick(raft: Raft) -> None:
    """A follower's or candidate's tick."""
    raft.election_elapsed += 1
    if raft.election_elapsed < raft.randomized_election_ticks:
        return
    if stand(raft):
        raft.election_elapsed = 0
    elif raft.is_learner:
        raft.lead = (
            NO_NODE  # it cannot look for another, but does not follow this one any more either
        )


def stand(raft: Raft) -> bool:
    """Campaign, by pre-vote first if so configured. False: this node may not, now."""
    return _campaign_if_allowed(
        raft, Campaign.PRE_ELECTION if raft.config.pre_vote else Campaign.ELECTION
    )


def on_timeout_now(raft: Raft, _message: Message) -> None:
    """The leader hands over to this node."""
    if raft.role is Role.FOLLOWER:
        _campaign_if_allowed(raft, Campaign.TRANSFER)


def _campaign_if_allowed(raft: Raft, campaign: Campaign) -> bool:
    if raft.role is Role.LEADER or not raft.promotable:
        return False
    if raft.promised and campaign is not Campaign.TRANSFER:
        return False
    # A membership change not in force here yet would make the votes count wrongly.
    if raft.log.has_unapplied_conf_change():
        return False
    _campaign(raft, campaign)
    return True


def _campaign(raft: Raft, campaign: Campaign) -> None:
    if campaign is Campaign.PRE_ELECTION:
        raft.become_pre_candidate()
        term = raft.term + 1
        ask, answer = MessageKind.PRE_VOTE, MessageKind.PRE_VOTE_RESPONSE
    else:
        raft.become_candidate()
        term = raft.term
        ask, answer = MessageKind.VOTE, MessageKind.VOTE_RESPONSE
    index, log_term = raft.log.last_index, raft.log.last_term
    context = _FORCED if campaign is Campaign.TRANSFER else b""
    for voter in sorted(raft.tracker.configuration.voters):
        if voter == raft.id:
            raft.after_append.append(Message(answer, voter, voter, term))
        else:
            raft.messages.append(
                Message(ask, voter, raft.id, term, index, log_term, context=context)
            )


def lead_anew(raft: Raft) -> None:
    """Let a leader that gave up its lease, for a transfer that came to nothing, win a new term, which has one.

    In its present term the target may still be elected, whenever what it was told arrives. In the new one it cannot: a
    quorum has voted. The promises that this campaign overrides were made to this leader.
    """
    if raft.promotable and not raft.log.has_unapplied_conf_change():
        raft.become_follower(raft.term, NO_NODE)
        _campaign(raft, Campaign.TRANSFER)


def withholds_vote(raft: Raft, message: Message) -> bool:
    """Whether a vote request is ignored because a leader was heard of too recently."""
    if message.context == _FORCED:
        return False
    if raft.promised:
        return True
    heard = raft.lead != NO_NODE and raft.election_elapsed < raft.config.election_ticks
    return heard and raft.config.check_quorum and message.term > raft.term


def on_vote_request(raft: Raft, message: Message) -> None:
    """Grant a vote or a pre-vote, once per term and only to a log that lacks nothing of ours."""
    is_vote = message.kind is MessageKind.VOTE
    answer = MessageKind.VOTE_RESPONSE if is_vote else MessageKind.PRE_VOTE_RESPONSE
    if can_vote(raft, message) and raft.log.is_up_to_date(message.index, message.log_term):
        # The candidate's term, not ours: a pre-vote is for a term that nobody has entered yet.
        raft.after_append.append(Message(answer, message.sender, raft.id, message.term))
        if is_vote:
            raft.election_elapsed = 0
            raft.vote = message.sender
    else:
        raft.after_append.append(_refusal(raft, answer, message.sender))


def _refusal(raft: Raft, answer: MessageKind, to: int) -> Message:
    """A refused vote. A node that is no voter any more adds the newest entry that it knows to be committed.

    Otherwise a remaining voter that missed the commit of a membership change, with a shorter log than those who
    left, would ask them for votes forever: they refuse, and may not stand themselves. (raft-rs does the same.)
    """
    index = log_term = 0
    if raft.id not in raft.tracker.configuration.voters:
        index = raft.log.committed
        log_term = raft.log.term(index) or 0
    return Message(answer, to, raft.id, raft.term, index, log_term, reject=True)


def _learn_commit(raft: Raft, message: Message) -> bool:
    """Take over what a refusal says is committed. Whether that is a membership change to be applied first."""
    log = raft.log
    if (
        not message.log_term
        or message.index <= log.committed
        or not log.matches(message.index, message.log_term)
    ):
        return False
    log.commit_to(message.index)
    return log.has_unapplied_conf_change()


def can_vote(raft: Raft, message: Message) -> bool:
    """Whether this term's vote is free, was given to the same candidate, or is not at stake.

    Learners vote when asked: the candidate may know that they have become voters before they do.
    """
    return (
        raft.vote == message.sender
        or (raft.vote == NO_NODE and raft.lead == NO_NODE)
        or (message.kind is MessageKind.PRE_VOTE and message.term > raft.term)
    )


def on_vote_response(raft: Raft, message: Message) -> None:
    """Count a vote; stale answers of an earlier pre-vote do not count in the election."""
    wanted = (
        MessageKind.VOTE_RESPONSE if raft.role is Role.CANDIDATE else MessageKind.PRE_VOTE_RESPONSE
    )
    if message.kind is not wanted:
        return
    if message.reject and _learn_commit(raft, message):
        raft.become_follower(raft.term, NO_NODE)
        return
    raft.tracker.votes.setdefault(message.sender, not message.reject)
    result = raft.tracker.tally()
    if result is VoteResult.WON:
        if raft.role is Role.PRE_CANDIDATE:
            _campaign(raft, Campaign.ELECTION)
        else:
            become_leader(raft)
            replication.broadcast_append(raft)
    elif result is VoteResult.LOST:
        raft.become_follower(raft.term, NO_NODE)


def inherit(raft: Raft, since_us: int) -> None:
    """Lead the very first term of a group, without an election.

    The caller knows that every first member began in this term with its vote given to this node, that none of them
    began before `since_us`, and that this node has not led the term before: so nobody else wins it, and the
    promise with which every member begins is a lease.
    """
    assert raft.vote == raft.id, "the term is another's"
    assert raft.log.last_index == raft.log.applied, "something was appended in the term"
    raft.role = Role.CANDIDATE
    become_leader(raft)
    for progress in raft.tracker.progress.values():
        progress.lease_from = since_us
        progress.recently_active = True
    replication.broadcast_append(raft)


def become_leader(raft: Raft) -> None:
    """Lead, and append the empty entry through which the log before it is committed."""
    assert raft.role is Role.CANDIDATE
    raft.reset(raft.term)
    raft.lead = raft.id
    raft.role = Role.LEADER
    progress = raft.tracker.progress[raft.id]
    progress.become_replicate()
    progress.recently_active = True
    # There may be a membership change in the log that is not applied; propose none until all of it is.
    raft.pending_conf_index = raft.log.last_index
    raft.log.append([Entry(raft.log.last_index + 1, raft.term, b"")])
    raft.acknowledge_own(raft.log.last_index)
