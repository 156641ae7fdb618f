"""grpc.health.v1 for load balancers: SERVING while statements can be run by way of this node, not in a minority."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import grpc
from grpc.aio import ServicerContext
from grpc_health.v1 import health_pb2

LOOK_SECONDS = 0.25
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class Health:
    """Health of the named services, the empty name among them."""

    def __init__(self, names: set[str], serves: Callable[[], bool]) -> None:
        self._names = names
        self._serves = serves
        self._stopping = asyncio.Event()

    async def Check(  # noqa: N802  # gRPC's name
        self, request: health_pb2.HealthCheckRequest, context: ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        """The health now."""
        if request.service not in self._names:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return health_pb2.HealthCheckResponse(status=self._status(request.service))

    async def List(  # noqa: N802  # gRPC's name
        self, request: health_pb2.HealthListRequest, context: ServicerContext
    ) -> health_pb2.HealthListResponse:
        """The health of every service now."""
        one = {
            name: health_pb2.HealthCheckResponse(status=self._status(name)) for name in self._names
        }
        return health_pb2.HealthListResponse(statuses=one)

    async def Watch(  # noqa: N802  # gRPC's name
        self, request: health_pb2.HealthCheckRequest, context: ServicerContext
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """The health now, and whenever it changes."""
        told = None
        while True:
            status = self._status(request.service)
            if status != told:
                told = status
                yield health_pb2.HealthCheckResponse(status=status)
            if self._stopping.is_set():
                return
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._stopping.wait()
            except TimeoutError:
                continue

    def stop(self) -> None:
        """Tell watchers, and let them go."""
        self._stopping.set()

    def _status(self, service: str) -> int:
        if service not in self._names:
            return int(_UNKNOWN)
        return int(_SERVING if self._serves() and not self._stopping.is_set() else _NOT_SERVING)
