"""The leader's side of replication: what to send to whom, and what their answers mean.

PROBE sends one append and waits; REPLICATE sends without waiting within the in-flight limits; a member whose
next entry is compacted away gets a snapshot. Only entries of the leader's own term are committed by counting.
Source: thesis sections 3.5, 3.6 and 10.2.1; etcd-io/raft.
"""

from __future__ import annotations

from shardforge.raft.log import data_size
from shardforge.raft.messages import NO_NODE, Message, MessageKind
from shardforge.raft.progress import Progress, ProgressState
from shardforge.raft.readindex import ReadState
from shardforge.raft.state import Raft

_APPEND = MessageKind.APPEND


def send_append(raft: Raft, to: int, *, even_empty: bool = True) -> bool:
    """Send a member what it lacks, as far as the limits allow. False: nothing was sent."""
    progress = raft.tracker.progress[to]
    if progress.paused:
        return False
    log = raft.log
    previous = progress.next - 1
    previous_term = log.term(previous)
    if previous_term is None:
        return _send_snapshot(raft, to, progress)
    # A full pipe still lets empty appends through: their rejection shows that what filled it was lost.
    full = progress.state is ProgressState.REPLICATE and progress.inflights.full
    entries = [] if full else log.entries_from(progress.next, raft.config.message_bytes_max)
    if not entries and not even_empty:
        return False
    commit = log.committed
    raft.messages.append(
        Message(
            _APPEND,
            to,
            raft.id,
            raft.term,
            previous,
            previous_term,
            commit,
            entries,
            sent_at=raft.now_us,
        )
    )
    progress.sent_entries(len(entries), data_size(entries))
    progress.sent_commit = commit
    return True


def _send_snapshot(raft: Raft, to: int, progress: Progress) -> bool:
    if not progress.recently_active:
        return False
    snapshot = raft.log.snapshot()
    if snapshot is None:
        return False
    progress.become_snapshot(snapshot.index)
    raft.messages.append(Message(MessageKind.SNAPSHOT, to, raft.id, raft.term, snapshot=snapshot))
    return True


def broadcast_append(raft: Raft, *, even_empty: bool = True) -> None:
    """Send every other member what it lacks."""
    for node in raft.tracker.progress:
        if node != raft.id:
            send_append(raft, node, even_empty=even_empty)


def broadcast_heartbeat(raft: Raft, context: bytes) -> None:
    """Tell every other member who leads, and which commit index is safe for it."""
    for node, progress in raft.tracker.progress.items():
        if node == raft.id:
            continue
        # The member may hold other entries beyond `match`: these must not be called committed.
        commit = min(progress.match, raft.log.committed)
        raft.messages.append(
            Message(
                MessageKind.HEARTBEAT,
                node,
                raft.id,
                raft.term,
                commit=commit,
                context=context,
                sent_at=raft.now_us,
            )
        )
        progress.sent_commit = commit


def advance_commit(raft: Raft) -> bool:
    """Commit what a quorum holds, if it is of this term."""
    index = raft.tracker.committed()
    if index <= raft.log.committed or not counts_for_commit(raft, index):
        return False
    raft.log.commit_to(index)
    return True


def counts_for_commit(raft: Raft, index: int) -> bool:
    """An entry of an older term on a quorum may still be replaced; one of this term may not (thesis 3.6.2)."""
    return raft.log.term(index) == raft.term


def on_append_response(raft: Raft, message: Message) -> None:
    """A member accepted or refused an append, or the leader's own entries are durable."""
    sender = message.sender
    progress = raft.tracker.progress.get(sender)
    if progress is None:
        return
    progress.recently_active = True
    if message.sent_at > progress.lease_from:
        progress.lease_from = message.sent_at
    if message.reject:
        _on_rejection(raft, message, progress)
        return
    index = message.index
    state = progress.state
    if not progress.acknowledge(index) and not (
        progress.match == index and state is ProgressState.PROBE
    ):
        return
    if state is ProgressState.REPLICATE:
        progress.inflights.free_to(index)
    elif state is ProgressState.PROBE:
        progress.become_replicate()
    elif progress.match + 1 >= raft.log.first_index:
        # Wherever the member got its state from, the log can carry it on from here.
        progress.become_probe()
        progress.become_replicate()
    if advance_commit(raft):
        if raft.pending_reads:
            release_pending_reads(raft)
        broadcast_append(raft)
    elif sender != raft.id and progress.can_learn_commit(raft.log.committed):
        send_append(raft, sender)
    if sender != raft.id:
        while send_append(raft, sender, even_empty=False):
            pass
        if sender == raft.transferee and progress.match == raft.log.last_index:
            send_timeout_now(raft, sender)


def _on_rejection(raft: Raft, message: Message, progress: Progress) -> None:
    hint = message.reject_hint
    if message.log_term:
        hint, _ = raft.log.conflict_hint(hint, message.log_term)
    if progress.reject(message.index, hint):
        if progress.state is ProgressState.REPLICATE:
            progress.become_probe()
        send_append(raft, message.sender)


def on_heartbeat_response(raft: Raft, message: Message) -> None:
    """A member is alive and still follows: prod it if it lags, confirm reads, extend the lease."""
    progress = raft.tracker.progress.get(message.sender)
    if progress is None:
        return
    progress.recently_active = True
    progress.flow_paused = False
    if message.sent_at > progress.lease_from:
        progress.lease_from = message.sent_at
    if progress.match < raft.log.last_index or progress.state is ProgressState.PROBE:
        send_append(raft, message.sender)
    if message.context:
        _confirm_reads(raft, message)


def _confirm_reads(raft: Raft, message: Message) -> None:
    confirmed = raft.reads.confirm(message.sender, message.context)
    if raft.tracker.is_won(confirmed):
        for request, index in raft.reads.release(message.context):
            answer_read(raft, request, index)


def answer_read(raft: Raft, request: Message, index: int) -> None:
    """A read may be served once `index` is applied, here or where it was asked."""
    if request.sender in (NO_NODE, raft.id):
        raft.read_states.append(ReadState(index, request.context))
        return
    raft.messages.append(
        Message(
            MessageKind.READ_INDEX_RESPONSE,
            request.sender,
            raft.id,
            raft.term,
            index,
            context=request.context,
        )
    )


def begin_read(raft: Raft, request: Message) -> None:
    """Confirm a read at the present commit index: by the lease, or by a round of heartbeats."""
    index = raft.log.committed
    if raft.is_alone or raft.lease_until_us > raft.now_us:
        answer_read(raft, request, index)
        return
    raft.reads.add(request, index, raft.id)
    broadcast_heartbeat(raft, request.context)


def release_pending_reads(raft: Raft) -> None:
    """Begin the reads that waited for this term's first commit."""
    if raft.committed_in_term:
        waiting, raft.pending_reads = raft.pending_reads, []
        for request in waiting:
            begin_read(raft, request)


def send_timeout_now(raft: Raft, to: int) -> None:
    """Let the target of a transfer campaign at once. From here on there is no lease in this term."""
    raft.lease_given_up = True
    raft.messages.append(Message(MessageKind.TIMEOUT_NOW, to, raft.id, raft.term))
