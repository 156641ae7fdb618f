"""The gRPC server: answers DatabaseService, health and reflection on the gateway's socket.

What needs the catalog is answered by the node that serves; any other passes the call on (`passing`).
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from grpc.aio import ServicerContext as Context
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from shardforge.errors import ConsensusError, DatabaseError, NetworkError, QueryError
from shardforge.ids import NodeId
from shardforge.server.follower import READ_ONLY, follower_of
from shardforge.server.grpc.access import Client, Passwords, check_tls, credentials_in
from shardforge.server.grpc.execution import (
    Caller,
    StatementFailed,
    execute_query,
    execute_transaction,
)
from shardforge.server.grpc.health import Health
from shardforge.server.grpc.passing import (
    MESSAGE_BYTES_MAX,
    NOT_RUN,
    SERVICE,
    NotRun,
    Passed,
    Passing,
    origin_in,
)
from shardforge.v1 import database_pb2 as pb
from shardforge.v1.details import DETAILS, SQLSTATE, code_of, details_of

if TYPE_CHECKING:
    from shardforge.server.grpc.gateway import Gateway
    from shardforge.sql.session.instance import Instance

M = TypeVar("M", bound=Message)
Work = Callable[["Instance", Caller, bytes], Awaitable[bytes]]
"""Answers a request, given as bytes as it came, on the node that serves."""

REQUEST_BYTES_MAX = 16 * 1024 * 1024
STREAMS_MAX = 100
HANDSHAKE_MS = 60_000
IDLE_MS = 15 * 60_000
PAUSE_SECONDS_MIN = 0.05
PAUSE_SECONDS_MAX = 1.0
OPTIONS = (
    ("grpc.max_receive_message_length", REQUEST_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_concurrent_streams", STREAMS_MAX),
    ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
    ("grpc.max_connection_idle_ms", IDLE_MS),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 2_000),
    ("grpc.so_reuseport", 0),
)
_STATEMENTS: dict[str, type[Message]] = {
    "ExecuteQuery": pb.ExecuteQueryRequest,
    "ExecuteTransaction": pb.ExecuteTransactionRequest,
}
_STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}

log = logging.getLogger("shardforge.grpc")


class _NotServing(ConsensusError):  # noqa: N818  # as what it extends
    """A node asked this one to run a call, but this one does not serve."""


class Service:
    """One node's gRPC server."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._server = gateway.server
        self._cluster = gateway.cluster
        self._passing = Passing(gateway.door_to)
        self._passwords = Passwords(gateway.blocking)
        self._health = Health({"", SERVICE}, self._takes_statements)
        self._grpc = grpc.aio.server(options=OPTIONS)

    async def start(self, path: str) -> None:
        """Listen on a Unix socket."""
        served: dict[str, Work] = {
            "ExecuteQuery": self._execute_query,
            "ExecuteTransaction": self._execute_transaction,
            "JoinCluster": self._join_cluster,
            "LeaveCluster": self._leave_cluster,
        }
        handlers = {
            name: self._handler(partial(self._served, name, work)) for name, work in served.items()
        }
        handlers["GetClusterStatus"] = self._handler(self._get_cluster_status)
        handlers["GetMetrics"] = self._handler(self._get_metrics)
        self._grpc.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, handlers),)
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
        names = (SERVICE, "grpc.health.v1.Health", reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._grpc)
        self._grpc.add_insecure_port(f"unix:{path}")
        await self._grpc.start()

    def _handler(self, work: Callable[[bytes, Context], Awaitable[bytes]]) -> grpc.RpcMethodHandler:
        """Bytes in, bytes out: nothing of a request is read before it is known whose it is, and who answers it."""

        async def call(request: bytes, context: Context) -> bytes:
            try:
                return await work(request, context)
            except Passed as passed:
                await context.abort(passed.code, passed.details, tuple(passed.trailing))
                raise AssertionError("abort raises") from None
            except StatementFailed as failed:
                await _refuse(context, failed.error, failed.number)
            except DatabaseError as error:
                await _refuse(context, error)
            except Exception:
                log.exception("a call ended on an internal error")
                await _refuse(context, DatabaseError("internal error; see error.log", "XX000"))

        return grpc.unary_unary_rpc_method_handler(call)

    async def stop(self, seconds: float) -> None:
        """Take no more calls; cancel what still runs after a while."""
        self._health.stop()
        await self._grpc.stop(seconds)
        await self._passing.close()

    def _takes_statements(self) -> bool:
        instance = self._server.instance
        if instance is not None:
            return not instance.standby
        return self._server.forward_to() is not None

    # ---- the calls -------------------------------------------------------------------------------

    async def _execute_query(self, instance: Instance, caller: Caller, data: bytes) -> bytes:
        request = _read(pb.ExecuteQueryRequest, data)
        return await execute_query(self._server, instance, caller, request)

    async def _execute_transaction(self, instance: Instance, caller: Caller, data: bytes) -> bytes:
        request = _read(pb.ExecuteTransactionRequest, data)
        return await execute_transaction(self._server, instance, caller, request)

    async def _get_cluster_status(self, _: bytes, context: Context) -> bytes:
        """Open to everyone, as it is to other nodes."""
        self._client(context)
        return _bytes(pb.GetClusterStatusResponse(json=json.dumps(await self._cluster.status())))

    async def _get_metrics(self, _: bytes, context: Context) -> bytes:
        """Open to everyone, as over HTTP."""
        self._client(context)
        return _bytes(pb.GetMetricsResponse(text=self._cluster.metrics()))

    async def _join_cluster(self, _: Instance, caller: Caller, data: bytes) -> bytes:
        _check_superuser(caller, "admit a node")
        request = _read(pb.JoinClusterRequest, data)
        if not request.token or not request.address:
            raise QueryError("a node that joins has a token and an address", "22023")
        joined = await self._cluster.join(
            request.token, request.address, request.version, request.node_id
        )
        nodes = [pb.NodeAddress(node_id=n, address=a) for n, a in joined.nodes]
        return _bytes(
            pb.JoinClusterResponse(
                node_id=joined.node, cluster_id=joined.cluster_id, cluster_name=joined.cluster_name, nodes=nodes
            )
        )  # fmt: skip

    async def _leave_cluster(self, _: Instance, caller: Caller, data: bytes) -> bytes:
        _check_superuser(caller, "have a node leave")
        await self._cluster.leave(NodeId(_read(pb.LeaveClusterRequest, data).node_id))
        return _bytes(pb.LeaveClusterResponse())

    # ---- who calls, and who answers --------------------------------------------------------------

    def _client(self, context: Context) -> Client:
        """Who calls. Raises NetworkError."""
        link = self._gateway.client(context.peer())
        if link is None:
            raise NetworkError("the connection is being closed", "08006")
        client = origin_in(tuple(context.invocation_metadata()), link) if link.node else link
        check_tls(self._server.config.security, client)
        return client

    async def _served(self, method: str, work: Work, request: bytes, context: Context) -> bytes:
        """What `work` gives on the node that serves. Raises what it raises, DatabaseError and Passed."""
        server, client = self._server, self._client(context)
        follower = await self._follower(method, request, client, context)
        if follower is not None:
            return await work(follower, await self._let_in(follower, client, context), request)
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + server.serving_seconds, PAUSE_SECONDS_MIN
        while True:
            instance = server.instance
            if client.node and (instance is None or instance.standby):
                raise _NotServing("this node does not serve at present")
            if instance is not None:
                return await work(instance, await self._let_in(instance, client, context), request)
            target = server.forward_to()
            if target is not None:
                try:
                    return await self._passing.call(target, method, request, context, client)
                except NotRun:
                    log.debug("node %d did not take a call", target)
            remaining = deadline - loop.time()
            if remaining <= 0:
                raise ConsensusError(
                    "no node serves the cluster at present",
                    hint="Try again in a moment, or look at it with: shardforge cluster status",
                )
            await server.wait_serving(min(pause, remaining))
            pause = min(pause * 2, PAUSE_SECONDS_MAX)

    async def _follower(
        self, method: str, request: bytes, client: Client, context: Context
    ) -> Instance | None:
        """The instance that answers the call here while another node serves, if it may and can."""
        if client.node or self._server.serves or method not in _STATEMENTS:
            return None
        message: Any = _read(_STATEMENTS[method], request)
        given = dict(message.settings)
        if isinstance(message, pb.ExecuteTransactionRequest):
            if message.commit_key:
                return None  # it writes
            if message.read_only:
                given.setdefault(READ_ONLY, "on")
        user = credentials_in(tuple(context.invocation_metadata())).user
        return await follower_of(self._server, user, message.database or user, given)

    async def _let_in(self, instance: Instance, client: Client, context: Context) -> Caller:
        """The user of a call, proved. Raises NetworkError."""
        given = credentials_in(tuple(context.invocation_metadata()))
        role = instance.catalog.role_named(given.user)
        try:
            await self._passwords.check(self._server.config.security, client, given, role)
            if role is None or not role.login:
                raise NetworkError(f'role "{given.user}" does not exist or may not log in', "28000")
        except NetworkError as error:
            self._server.log_error(error, given)
            raise
        return Caller(client, given, role)


async def _refuse(context: Context, error: DatabaseError, statement: int = 0) -> NoReturn:
    """End the call with a status that tells the error."""
    trailing: list[tuple[str, str | bytes]] = [
        (SQLSTATE, error.sqlstate),
        (DETAILS, details_of(error, statement)),
    ]
    if isinstance(error, _NotServing):
        trailing.append((NOT_RUN, "1"))
    await context.abort(_STATUS_CODES[code_of(error.sqlstate)], error.message, tuple(trailing))
    raise AssertionError("abort raises")


def _check_superuser(caller: Caller, what: str) -> None:
    if not caller.role.superuser:
        raise QueryError(f"must be superuser to {what}", "42501")


def _read(kind: type[M], data: bytes) -> M:
    """A request as a message. Raises NetworkError 08P01."""
    message: M = kind()
    try:
        message.ParseFromString(data)
    except DecodeError:
        raise NetworkError(f"the request is no {kind.__name__}", "08P01") from None
    return message


def _bytes(message: Message) -> bytes:
    return bytes(message.SerializeToString())
