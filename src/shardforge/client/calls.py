"""What both clients share: requests, results, and errors as exceptions of `shardforge.errors`.

Invariant: an error says that nothing was done (08001, or what the server says), or that nobody knows (08007, 40003).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc

from shardforge.client.values import rows_of, value_of
from shardforge.config import split_address
from shardforge.errors import DatabaseError, NetworkError, QueryError
from shardforge.v1 import database_pb2 as pb
from shardforge.v1.details import DETAILS, error_of

Statement = str | tuple[str, Sequence[object]]
"""The text, or the text and its parameters."""

MESSAGE_BYTES_MAX = 80 * 1024 * 1024
RESULT_BYTES_MAX = 64 * 1024 * 1024
OPTIONS: Sequence[tuple[str, Any]] = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)
_ISOLATION = {
    None: pb.ISOLATION_LEVEL_UNSPECIFIED,
    "read committed": pb.ISOLATION_LEVEL_READ_COMMITTED,
    "repeatable read": pb.ISOLATION_LEVEL_REPEATABLE_READ,
    "serializable": pb.ISOLATION_LEVEL_SERIALIZABLE,
}
_DEFAULTS = {"DateStyle": "ISO", "bytea_output": "hex"}
"""So that text forms are those that are read here, whatever the role's settings."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a result."""

    name: str
    type: str
    type_oid: int


@dataclass(frozen=True, slots=True)
class Result:
    """What one statement gave."""

    columns: tuple[Column, ...]
    rows: list[tuple[Any, ...]]
    tag: str
    rows_affected: int
    notices: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class TransactionResult:
    """What a transaction gave. `committed_before`: one with its commit key had been committed, and it did nothing."""

    results: list[Result]
    committed_before: bool
    retries: int
    notices: list[str]


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect, and as whom. `tls`: True trusts the system's authorities, a path those of the file."""

    address: str
    user: str
    password: str | None
    database: str
    tls: bool | str | Path

    @property
    def grpc_target(self) -> str:
        """The address as gRPC wants it; of several, separated by commas, the first that answers is taken.

        Raises NetworkError 08001 for several that are not all numbers of one version of IP.
        """
        if "," not in self.address:
            return self.address
        try:
            hosts = [split_address(one.strip())[0] for one in self.address.split(",")]
            (version,) = {ip_address(host).version for host in hosts}
        except ValueError:
            raise NetworkError(
                f'"{self.address}" are not several addresses like 10.0.0.1:5432', "08001"
            ) from None
        return f"ipv{version}:{self.address.replace(' ', '')}"

    @property
    def credentials(self) -> grpc.ChannelCredentials | None:
        """TLS; None: in the clear."""
        if self.tls is False:
            return None
        roots = None if self.tls is True else Path(self.tls).read_bytes()
        return grpc.ssl_channel_credentials(roots)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Who calls."""
        pair = self.user if self.password is None else f"{self.user}:{self.password}"
        return (("authorization", "Basic " + base64.b64encode(pair.encode()).decode()),)


# ---- requests ----------------------------------------------------------------------------------------


def query(
    database: str, sql: str, parameters: Sequence[object], settings: Mapping[str, str] | None
) -> pb.ExecuteQueryRequest:
    """A request for one statement."""
    return pb.ExecuteQueryRequest(
        database=database, sql=sql, parameters=[value_of(p) for p in parameters],
        settings={**_DEFAULTS, **(settings or {})}, max_result_bytes=RESULT_BYTES_MAX,
    )  # fmt: skip


def transaction(
    database: str, statements: Sequence[Statement], isolation: str | None, read_only: bool, commit_key: str,
    retries: int, settings: Mapping[str, str] | None,
) -> pb.ExecuteTransactionRequest:  # fmt: skip
    """A request for a transaction. Raises QueryError 22023."""
    if isolation not in _ISOLATION:
        raise QueryError(f'there is no isolation level "{isolation}"', "22023")
    pairs = [(s, ()) if isinstance(s, str) else s for s in statements]
    return pb.ExecuteTransactionRequest(
        database=database, isolation_level=_ISOLATION[isolation], read_only=read_only, commit_key=commit_key,
        statements=[
            pb.Statement(sql=sql, parameters=[value_of(p) for p in parameters])
            for sql, parameters in pairs
        ],
        settings={**_DEFAULTS, **(settings or {})}, max_result_bytes=RESULT_BYTES_MAX, max_retries=retries,
    )  # fmt: skip


# ---- answers -----------------------------------------------------------------------------------------


def _result(result: pb.QueryResult, notices: list[str]) -> Result:
    columns = tuple(Column(c.name, c.type, c.type_oid) for c in result.columns)
    return Result(columns, rows_of(result), result.command_tag, result.rows_affected, notices)


def _notices(response: pb.ExecuteQueryResponse | pb.ExecuteTransactionResponse) -> list[str]:
    return [f"{notice.severity}: {notice.message}" for notice in response.notices]


def result_of(response: pb.ExecuteQueryResponse) -> Result:
    """The answer to `query`."""
    return _result(response.result, _notices(response))


def transaction_result_of(response: pb.ExecuteTransactionResponse) -> TransactionResult:
    """The answer to `transaction`."""
    results = [_result(result, []) for result in response.results]
    return TransactionResult(
        results, response.committed_before, response.retries, _notices(response)
    )


def failure_of(error: grpc.RpcError) -> DatabaseError:
    """The exception for a call that failed."""
    code, details = error.code(), error.details() or ""
    for name, value in error.trailing_metadata() or ():
        if name == DETAILS:
            ours = error_of(value)
            if ours is not None:
                return ours
    if code is grpc.StatusCode.UNAVAILABLE and _never_sent(details):
        return NetworkError(
            f"could not connect: {details}", "08001", hint="Check the address, and that the node runs."
        )  # fmt: skip
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        return NetworkError(
            f"no answer came: {details}", "08007",
            hint="Check whether the statement's effects are there before repeating it, or use a commit key.",
        )  # fmt: skip
    if code is grpc.StatusCode.CANCELLED:
        return QueryError("the call was cancelled", "57014")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return QueryError(details, "54000")
    return NetworkError(f"{code.name}: {details}", "08P01")


def _never_sent(details: str) -> bool:
    return details.startswith(("failed to connect", "DNS resolution failed", "no children"))
