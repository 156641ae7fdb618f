"""A client of the gRPC API: `connect` for plain code, `connect_async` for asyncio.

    with shardforge.client.connect("127.0.0.1:5432") as database:
        database.execute("INSERT INTO note VALUES ($1, $2)", [1, "hello"])
        for (body,) in database.execute("SELECT body FROM note").rows: ...
        database.transaction(["UPDATE ...", ("DELETE ... WHERE id = $1", [7])], commit_key="order 7")

Each `execute` is a transaction; `transaction` takes its statements at once. Errors are `shardforge.errors`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc

from shardforge.client import calls
from shardforge.client.calls import Column, Result, Statement, Target, TransactionResult
from shardforge.v1 import database_pb2 as pb
from shardforge.v1 import database_pb2_grpc as pb_grpc

__all__ = [
    "AsyncClient",
    "Client",
    "Column",
    "Result",
    "Statement",
    "TransactionResult",
    "connect",
    "connect_async",
]


def connect(
    address: str, *, user: str = "shardforge", password: str | None = None, database: str = "",
    tls: bool | str | Path = False,
) -> Client:  # fmt: skip
    """A client of the node at "host:port"; of several addresses, separated by commas, the first that answers.

    The connection is made by the first call. `tls`: True, or the file of the authorities to trust. `database`: by
    default the one that has the user's name.
    """
    return Client(Target(address, user, password, database, tls))


def connect_async(
    address: str, *, user: str = "shardforge", password: str | None = None, database: str = "",
    tls: bool | str | Path = False,
) -> AsyncClient:  # fmt: skip
    """As `connect`, for asyncio; to be called in a running event loop."""
    return AsyncClient(Target(address, user, password, database, tls))


class Client:
    """A client; it may be used by several threads. `timeout` is in seconds; None waits as long as the server does."""

    def __init__(self, target: Target) -> None:
        credentials = target.credentials
        self._channel = (
            grpc.insecure_channel(target.grpc_target, calls.OPTIONS)
            if credentials is None
            else grpc.secure_channel(target.grpc_target, credentials, calls.OPTIONS)
        )
        self._stub = pb_grpc.DatabaseServiceStub(self._channel)
        self._target = target

    def execute(
        self, sql: str, parameters: Sequence[object] = (), *, timeout: float | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> Result:  # fmt: skip
        """Run one statement, with parameters for $1, $2, ..., and commit it. Raises DatabaseError."""
        request = calls.query(self._target.database, sql, parameters, settings)
        return calls.result_of(self._call("ExecuteQuery", request, timeout))

    def transaction(
        self, statements: Sequence[Statement], *, isolation: str | None = None, read_only: bool = False,
        commit_key: str = "", retries: int = 0, timeout: float | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> TransactionResult:  # fmt: skip
        """Run statements in one transaction; `retries`: how often again after a conflict. Raises DatabaseError."""
        request = calls.transaction(
            self._target.database, statements, isolation, read_only, commit_key, retries, settings
        )
        return calls.transaction_result_of(self._call("ExecuteTransaction", request, timeout))

    def status(self, *, timeout: float | None = None) -> dict[str, Any]:
        """The status document of the cluster. Raises DatabaseError."""
        answer = self._call("GetClusterStatus", pb.GetClusterStatusRequest(), timeout)
        found: dict[str, Any] = json.loads(answer.json)
        return found

    def metrics(self, *, timeout: float | None = None) -> str:
        """The node's figures as Prometheus reads them. Raises DatabaseError."""
        return str(self._call("GetMetrics", pb.GetMetricsRequest(), timeout).text)

    def leave(self, node: int, *, timeout: float | None = None) -> None:
        """Have a node drained and leave; it has left when `status` has it no more. Raises DatabaseError."""
        self._call("LeaveCluster", pb.LeaveClusterRequest(node_id=node), timeout)

    def _call(self, method: str, request: object, timeout: float | None) -> Any:
        try:
            return getattr(self._stub, method)(
                request, timeout=timeout, metadata=self._target.metadata
            )
        except grpc.RpcError as error:
            failure = calls.failure_of(error)
        raise failure  # outside, as gRPC's error would keep the connection alive

    def close(self) -> None:
        """End the connection."""
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:  # fmt: skip
        self.close()


class AsyncClient:
    """A client for one event loop. Cancelling a call cancels its statement."""

    def __init__(self, target: Target) -> None:
        credentials = target.credentials
        self._channel = (
            grpc.aio.insecure_channel(target.grpc_target, calls.OPTIONS)
            if credentials is None
            else grpc.aio.secure_channel(target.grpc_target, credentials, calls.OPTIONS)
        )
        self._stub = pb_grpc.DatabaseServiceStub(self._channel)
        self._target = target

    async def execute(
        self, sql: str, parameters: Sequence[object] = (), *, timeout: float | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> Result:  # fmt: skip
        """Run one statement, with parameters for $1, $2, ..., and commit it. Raises DatabaseError."""
        request = calls.query(self._target.database, sql, parameters, settings)
        return calls.result_of(await self._call("ExecuteQuery", request, timeout))

    async def transaction(
        self, statements: Sequence[Statement], *, isolation: str | None = None, read_only: bool = False,
        commit_key: str = "", retries: int = 0, timeout: float | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> TransactionResult:  # fmt: skip
        """Run statements in one transaction; `retries`: how often again after a conflict. Raises DatabaseError."""
        request = calls.transaction(
            self._target.database, statements, isolation, read_only, commit_key, retries, settings
        )
        return calls.transaction_result_of(await self._call("ExecuteTransaction", request, timeout))

    async def status(self, *, timeout: float | None = None) -> dict[str, Any]:
        """The status document of the cluster. Raises DatabaseError."""
        answer = await self._call("GetClusterStatus", pb.GetClusterStatusRequest(), timeout)
        found: dict[str, Any] = json.loads(answer.json)
        return found

    async def metrics(self, *, timeout: float | None = None) -> str:
        """The node's figures as Prometheus reads them. Raises DatabaseError."""
        return str((await self._call("GetMetrics", pb.GetMetricsRequest(), timeout)).text)

    async def leave(self, node: int, *, timeout: float | None = None) -> None:
        """Have a node drained and leave; it has left when `status` has it no more. Raises DatabaseError."""
        await self._call("LeaveCluster", pb.LeaveClusterRequest(node_id=node), timeout)

    async def _call(self, method: str, request: object, timeout: float | None) -> Any:
        try:
            return await getattr(self._stub, method)(
                request, timeout=timeout, metadata=self._target.metadata
            )
        except grpc.RpcError as error:
            failure = calls.failure_of(error)
        raise failure  # outside, as gRPC's error would keep the connection alive

    async def close(self) -> None:
        """End the connection."""
        await self._channel.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:  # fmt: skip
        await self.close()
