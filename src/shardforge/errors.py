"""Every failure that reaches a caller: five families, one SQLSTATE each, and what to do about it.

    DatabaseError
    +-- ConsensusError     "RAFT consensus error: "   a shard's group cannot decide now
    +-- StorageError       "Storage error: "          bytes on disk cannot be written or trusted
    +-- QueryError         "Query error: "            the statement is wrong, or not supported
    +-- NetworkError       "Network error: "          a peer or client cannot be reached or understood
    +-- TransactionError   "Transaction error: "      the transaction cannot go on

`str(error)` begins with the family's prefix; `error.message` is PostgreSQL's wording without it, which
is what the wire protocol carries. `Reaction` says what the caller may do; it follows from the SQLSTATE.
Expected outcomes (lock held, not leader) are return values, and our own bugs are asserts; neither is here.
Source: PostgreSQL 15, appendix A (error codes) and chapter 55.8 (error fields).
"""

from __future__ import annotations

import enum


class Reaction(enum.Enum):
    """What a caller may do after an error."""

    FIX_STATEMENT = "fix the statement"
    RETRY_TRANSACTION = "retry the transaction"
    TRY_AGAIN = "try again or elsewhere"
    OUTCOME_UNKNOWN = "outcome unknown: find out before retrying"
    INTERNAL = "internal error: report it"


def reaction_to(sqlstate: str) -> Reaction:
    """What a caller may do, from the SQLSTATE alone."""
    if sqlstate in ("40003", "08007"):
        return Reaction.OUTCOME_UNKNOWN
    if sqlstate in ("40001", "40P01"):
        return Reaction.RETRY_TRANSACTION
    if sqlstate[:2] in ("08", "53", "57", "55"):
        return Reaction.TRY_AGAIN
    if sqlstate[:2] in ("XX", "58"):
        return Reaction.INTERNAL
    return Reaction.FIX_STATEMENT


class DatabaseError(Exception):
    """An error with the fields of PostgreSQL's ErrorResponse.

    `position` is the 1-based character offset into the statement text, 0 when unknown.
    """

    prefix = "Database error: "
    default_sqlstate = "XX000"

    def __init__(
        self,
        message: str,
        sqlstate: str | None = None,
        *,
        detail: str = "",
        hint: str = "",
        position: int = 0,
        schema: str = "",
        table: str = "",
        column: str = "",
        datatype: str = "",
        constraint: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.sqlstate = sqlstate or self.default_sqlstate
        self.detail = detail
        self.hint = hint
        self.position = position
        self.schema = schema
        self.table = table
        self.column = column
        self.datatype = datatype
        self.constraint = constraint

    @property
    def reaction(self) -> Reaction:
        """What the caller may do."""
        return reaction_to(self.sqlstate)

    def __str__(self) -> str:
        return self.prefix + self.message


class ConsensusError(DatabaseError):
    """A shard's Raft group cannot decide now: no leader, or leadership lost midway."""

    prefix = "RAFT consensus error: "
    default_sqlstate = "57P03"


class StorageError(DatabaseError):
    """Bytes on disk cannot be written, or cannot be trusted."""

    prefix = "Storage error: "
    default_sqlstate = "58030"


class QueryError(DatabaseError):
    """The statement is wrong, violates a constraint, or asks for what is not supported."""

    prefix = "Query error: "
    default_sqlstate = "42000"


class NetworkError(DatabaseError):
    """A peer or client cannot be reached, or does not speak the protocol."""

    prefix = "Network error: "
    default_sqlstate = "08P01"


class TransactionError(DatabaseError):
    """The transaction cannot go on: conflict, deadlock, wrong state, or unknown outcome."""

    prefix = "Transaction error: "
    default_sqlstate = "40001"


def unsupported(what: str, *, hint: str = "", position: int = 0) -> QueryError:
    """The error for a PostgreSQL feature that is not here: `0A000`, never a wrong answer."""
    return QueryError(f"{what} is not supported", "0A000", hint=hint, position=position)


def too_deep() -> QueryError:
    """The error for a statement whose nesting exceeds what the interpreter's stack bears."""
    return QueryError(
        "stack depth limit exceeded", "54001", hint="The statement is nested too deeply."
    )


def serialization_failure(detail: str = "", *, cause: str = "update") -> TransactionError:
    """The error for a transaction that must be retried from its start."""
    return TransactionError(
        f"could not serialize access due to concurrent {cause}",
        "40001",
        detail=detail,
        hint="The transaction might succeed if retried.",
    )
