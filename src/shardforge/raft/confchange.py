"""Membership changes: what may be asked, and the configuration that results.

Pure functions of a configuration: a change either yields a new one or raises `ConfChangeError`; nothing is
changed in place. Leaving a majority set and entering another goes through a joint configuration, in which
both majorities decide.
Invariants: a member is a voter or a learner, not both; `learners_next` are outgoing voters; an outgoing half
exists only in a joint configuration. Source: thesis section 4.3, etcd-io/raft confchange.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

import msgspec

from shardforge.raft.messages import NO_NODE, ConfState


class ConfChangeError(Exception):
    """The change cannot be made to the configuration at hand."""


class ChangeKind(enum.IntEnum):
    """What happens to one node."""

    ADD_VOTER = 0
    REMOVE = 1
    UPDATE = 2
    ADD_LEARNER = 3


class Transition(enum.IntEnum):
    """How a joint configuration is entered and left."""

    AUTO = 0
    """One change: at once. Several: joint, left automatically."""
    JOINT_IMPLICIT = 1
    """Joint, left automatically."""
    JOINT_EXPLICIT = 2
    """Joint, left when an empty change is proposed."""


class Change(msgspec.Struct, frozen=True, array_like=True):
    """One node's part in a membership change."""

    kind: ChangeKind
    node: int


class ConfChange(msgspec.Struct, frozen=True, array_like=True):
    """A proposed membership change. Without changes: leave the joint configuration."""

    changes: tuple[Change, ...] = ()
    transition: Transition = Transition.AUTO
    context: bytes = b""

    @property
    def leaves_joint(self) -> bool:
        """Whether this is the change that ends a joint configuration."""
        return not self.changes and self.transition is Transition.AUTO

    @property
    def enters_joint(self) -> bool:
        """Whether this change goes through a joint configuration."""
        return self.transition is not Transition.AUTO or len(self.changes) > 1


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(ConfChange)


def encode_conf_change(change: ConfChange) -> bytes:
    """The data of a conf-change entry. Leaving a joint configuration is empty data."""
    return _encoder.encode(change) if change != ConfChange() else b""


def decode_conf_change(data: bytes) -> ConfChange:
    """The change in a conf-change entry."""
    return _decoder.decode(data) if data else ConfChange()


class Configuration(msgspec.Struct, frozen=True):
    """Who belongs to the group. `outgoing` is empty unless the configuration is joint."""

    incoming: frozenset[int] = frozenset()
    outgoing: frozenset[int] = frozenset()
    learners: frozenset[int] = frozenset()
    learners_next: frozenset[int] = frozenset()
    auto_leave: bool = False

    @property
    def joint(self) -> bool:
        """Whether two majorities decide."""
        return bool(self.outgoing)

    @property
    def voters(self) -> frozenset[int]:
        """Everyone whose vote counts in either half."""
        return self.incoming | self.outgoing

    @property
    def members(self) -> frozenset[int]:
        """Everyone who receives the log."""
        return self.incoming | self.outgoing | self.learners

    def conf_state(self) -> ConfState:
        """The same, as it is kept and sent."""
        return ConfState(
            tuple(sorted(self.incoming)),
            tuple(sorted(self.outgoing)),
            tuple(sorted(self.learners)),
            tuple(sorted(self.learners_next)),
            self.auto_leave,
        )


def restore(state: ConfState) -> Configuration:
    """The configuration that `conf_state` was taken from."""
    configuration = Configuration(
        frozenset(state.voters),
        frozenset(state.voters_outgoing),
        frozenset(state.learners),
        frozenset(state.learners_next),
        state.auto_leave,
    )
    _check(configuration)
    return configuration


def apply(configuration: Configuration, change: ConfChange) -> Configuration:
    """The configuration after a committed change."""
    if change.leaves_joint:
        return leave_joint(configuration)
    if change.enters_joint:
        auto_leave = change.transition is not Transition.JOINT_EXPLICIT
        return enter_joint(configuration, change.changes, auto_leave=auto_leave)
    return simple(configuration, change.changes)


def simple(configuration: Configuration, changes: Sequence[Change]) -> Configuration:
    """Change at most one voter at once: the old and the new majority overlap."""
    if configuration.joint:
        raise ConfChangeError("can't apply simple config change in joint config")
    changed = _change(configuration, changes)
    if len(configuration.incoming ^ changed.incoming) > 1:
        raise ConfChangeError("more than one voter changed without entering joint config")
    return changed


def enter_joint(
    configuration: Configuration, changes: Sequence[Change], *, auto_leave: bool
) -> Configuration:
    """Make the present voters the outgoing half and apply the changes to the incoming one."""
    if configuration.joint:
        raise ConfChangeError("config is already joint")
    if not configuration.incoming:
        raise ConfChangeError("can't make a zero-voter config joint")
    joint = msgspec.structs.replace(configuration, outgoing=configuration.incoming)
    return msgspec.structs.replace(_change(joint, changes), auto_leave=auto_leave)


def leave_joint(configuration: Configuration) -> Configuration:
    """Drop the outgoing half; voters demoted in the joint configuration become learners now."""
    if not configuration.joint:
        raise ConfChangeError("can't leave a non-joint config")
    left = Configuration(
        configuration.incoming, learners=configuration.learners | configuration.learners_next
    )
    _check(left)
    return left


def _change(configuration: Configuration, changes: Sequence[Change]) -> Configuration:
    for change in changes:
        if change.node == NO_NODE or change.kind is ChangeKind.UPDATE:
            continue
        if change.kind is ChangeKind.ADD_VOTER:
            configuration = _promote(configuration, change.node)
        elif change.kind is ChangeKind.ADD_LEARNER:
            configuration = _demote(configuration, change.node)
        else:
            configuration = _remove(configuration, change.node)
    if not configuration.incoming:
        raise ConfChangeError("removed all voters")
    _check(configuration)
    return configuration


def _promote(configuration: Configuration, node: int) -> Configuration:
    return msgspec.structs.replace(
        configuration,
        incoming=configuration.incoming | {node},
        learners=configuration.learners - {node},
        learners_next=configuration.learners_next - {node},
    )


def _demote(configuration: Configuration, node: int) -> Configuration:
    if node in configuration.learners:
        return configuration
    removed = _remove(configuration, node)
    if node in configuration.outgoing:
        return msgspec.structs.replace(removed, learners_next=removed.learners_next | {node})
    return msgspec.structs.replace(removed, learners=removed.learners | {node})


def _remove(configuration: Configuration, node: int) -> Configuration:
    return msgspec.structs.replace(
        configuration,
        incoming=configuration.incoming - {node},
        learners=configuration.learners - {node},
        learners_next=configuration.learners_next - {node},
    )


def _check(configuration: Configuration) -> None:
    """Raise unless the module's invariants hold."""
    if configuration.learners & configuration.voters:
        raise ConfChangeError("a learner is also a voter")
    if not configuration.learners_next <= configuration.outgoing:
        raise ConfChangeError("a future learner is not an outgoing voter")
    if not configuration.joint and configuration.auto_leave:
        raise ConfChangeError("auto-leave without a joint config")
