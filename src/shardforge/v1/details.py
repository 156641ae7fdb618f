"""Errors over gRPC: a status code that any client understands, and all fields of ours in its details, both ways.

The details are a google.rpc.Status in the trailing metadata `grpc-status-details-bin`, as gRPC's tools read them.
Invariant: ABORTED and UNAVAILABLE mean that nothing was committed and that trying again may help; what may have been
committed is UNKNOWN.
Source: google/rpc/code.proto; PostgreSQL 15, appendix A.
"""

from __future__ import annotations

from google.protobuf.message import DecodeError
from google.rpc import code_pb2, status_pb2

from shardforge.errors import (
    ConsensusError,
    DatabaseError,
    NetworkError,
    QueryError,
    Reaction,
    StorageError,
    TransactionError,
)
from shardforge.v1 import database_pb2 as pb

DETAILS = "grpc-status-details-bin"
SQLSTATE = "sqlstate"

_CODES: dict[str, int] = {
    "0A": code_pb2.UNIMPLEMENTED,
    "08": code_pb2.UNAVAILABLE,
    "08007": code_pb2.UNKNOWN,
    "08P01": code_pb2.INVALID_ARGUMENT,
    "21": code_pb2.INVALID_ARGUMENT,
    "22": code_pb2.INVALID_ARGUMENT,
    "22003": code_pb2.OUT_OF_RANGE,
    "23": code_pb2.FAILED_PRECONDITION,
    "23505": code_pb2.ALREADY_EXISTS,
    "28": code_pb2.UNAUTHENTICATED,
    "3D": code_pb2.NOT_FOUND,
    "3F": code_pb2.NOT_FOUND,
    "40": code_pb2.ABORTED,
    "40002": code_pb2.FAILED_PRECONDITION,
    "40003": code_pb2.UNKNOWN,
    "42": code_pb2.INVALID_ARGUMENT,
    "42501": code_pb2.PERMISSION_DENIED,
    "42P01": code_pb2.NOT_FOUND,
    "42703": code_pb2.NOT_FOUND,
    "42704": code_pb2.NOT_FOUND,
    "42883": code_pb2.NOT_FOUND,
    "42P03": code_pb2.ALREADY_EXISTS,
    "42P04": code_pb2.ALREADY_EXISTS,
    "42P06": code_pb2.ALREADY_EXISTS,
    "42P07": code_pb2.ALREADY_EXISTS,
    "42701": code_pb2.ALREADY_EXISTS,
    "42710": code_pb2.ALREADY_EXISTS,
    "42723": code_pb2.ALREADY_EXISTS,
    "53": code_pb2.RESOURCE_EXHAUSTED,
    "54": code_pb2.RESOURCE_EXHAUSTED,
    "55P03": code_pb2.ABORTED,
    "57": code_pb2.UNAVAILABLE,
    "57014": code_pb2.CANCELLED,
    "58": code_pb2.INTERNAL,
    "XX": code_pb2.INTERNAL,
    "XX001": code_pb2.DATA_LOSS,
    "XX002": code_pb2.DATA_LOSS,
}
"""By SQLSTATE, or else by its class."""

_FAMILIES: dict[type[DatabaseError], pb.ErrorFamily] = {
    ConsensusError: pb.ERROR_FAMILY_CONSENSUS,
    StorageError: pb.ERROR_FAMILY_STORAGE,
    QueryError: pb.ERROR_FAMILY_QUERY,
    NetworkError: pb.ERROR_FAMILY_NETWORK,
    TransactionError: pb.ERROR_FAMILY_TRANSACTION,
}
_CLASSES = {number: family for family, number in _FAMILIES.items()}

_REACTIONS = {
    Reaction.FIX_STATEMENT: pb.REACTION_FIX_STATEMENT,
    Reaction.RETRY_TRANSACTION: pb.REACTION_RETRY_TRANSACTION,
    Reaction.TRY_AGAIN: pb.REACTION_TRY_AGAIN,
    Reaction.OUTCOME_UNKNOWN: pb.REACTION_OUTCOME_UNKNOWN,
    Reaction.INTERNAL: pb.REACTION_INTERNAL,
}
_RETRYABLE = (Reaction.RETRY_TRANSACTION, Reaction.TRY_AGAIN)


def code_of(sqlstate: str) -> int:
    """The number of the status code for an SQLSTATE."""
    return _CODES.get(sqlstate) or _CODES.get(sqlstate[:2]) or code_pb2.FAILED_PRECONDITION


def details_of(error: DatabaseError, statement: int = 0) -> bytes:
    """The serialized google.rpc.Status of an error, of a transaction's statement of that number."""
    family = next((n for c, n in _FAMILIES.items() if isinstance(error, c)), None)
    ours = pb.DatabaseError(
        sqlstate=error.sqlstate, message=error.message, detail=error.detail, hint=error.hint, family=family,
        reaction=_REACTIONS[error.reaction], retryable=error.reaction in _RETRYABLE, position=error.position,
        schema=error.schema, table=error.table, column=error.column, datatype=error.datatype,
        constraint=error.constraint, statement=statement,
    )  # fmt: skip
    status = status_pb2.Status(code=code_of(error.sqlstate), message=error.message)
    status.details.add().Pack(ours)
    return bytes(status.SerializeToString())


def error_of(details: bytes) -> DatabaseError | None:
    """The error in a serialized google.rpc.Status; None when there is none of ours."""
    ours = pb.DatabaseError()
    try:
        status = status_pb2.Status.FromString(details)
        if not any(one.Unpack(ours) for one in status.details):
            return None
    except DecodeError:
        return None
    family = _CLASSES.get(ours.family, DatabaseError)
    return family(
        ours.message, ours.sqlstate, detail=ours.detail, hint=ours.hint, position=ours.position, schema=ours.schema,
        table=ours.table, column=ours.column, datatype=ours.datatype, constraint=ours.constraint,
    )  # fmt: skip
