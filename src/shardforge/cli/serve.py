"""`shardforge start`: one node in this process, until a signal, or until it has left its cluster."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Sequence

import typer
import uvloop

from shardforge.adapters.stack import allow_deep_statements
from shardforge.config import Config
from shardforge.node import Node


def serve(config: Config, seeds: Sequence[str] = ()) -> None:
    """Run a node until SIGINT, SIGTERM or its leave; it joins the cluster of `seeds` if it is new.

    Raises DatabaseError.
    """
    allow_deep_statements()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(config, seeds))


def _relax_collector() -> None:
    """Catalogs and caches live as long as the node: looking through them for cycles again and again costs a tenth.

    A look through everything while a large transaction is in memory takes half a second, in which heartbeats do not
    leave; cycles are made by errors and die young, so it is left to memory's real growth. A look through the youngest
    million objects took 0.24 s, through a quarter of them less than a tenth.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 5, 20_000)


async def _serve(config: Config, seeds: Sequence[str]) -> None:
    node = Node(config, seeds=seeds)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    await node.start()
    _relax_collector()
    host, port = node.address
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # compared, not bound
    typer.echo(
        f"ShardForge is ready. Connect with:\n\n    psql -h {shown} -p {port} -U shardforge shardforge\n"
    )
    dismissed = asyncio.create_task(node.dismissed(), name="dismissed")
    stopped = asyncio.create_task(stopping.wait(), name="signals")
    await asyncio.wait({stopped, dismissed}, return_when=asyncio.FIRST_COMPLETED)
    left = not stopped.done()
    for task in (stopped, dismissed):
        task.cancel()
    await node.stop()
    if left and dismissed.result() is None:
        typer.echo(
            f"Node {node.id} has left the cluster. Its data directory is not needed any more."
        )
