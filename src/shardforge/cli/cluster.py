"""`shardforge cluster`: how a cluster is, in tables that fit a terminal or as JSON, and who is to leave it."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.live import Live
from rich.progress import Progress, TaskID
from rich.table import Column, Table

from shardforge.cli.output import fail
from shardforge.errors import DatabaseError
from shardforge.ids import NodeId

app = typer.Typer(help="Look at a cluster, and take nodes out of it.", no_args_is_help=True)

HostOption = Annotated[str, typer.Option("--host", help="HOST:PORT of any node.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the status document.")]
WatchOption = Annotated[bool, typer.Option("--watch", help="Show it again every second.")]

DEFAULT_HOST = "127.0.0.1:5432"
ASK_SECONDS = 6.0
WATCH_SECONDS = 1.0
POLL_SECONDS = 0.2


def _ask(host: str, method: str, body: bytes = b"") -> bytes:
    """What the node at `host` answers. Raises DatabaseError."""
    from shardforge.server.peer.network import PeerNetwork  # other commands need none of it

    async def ask() -> bytes:
        network = PeerNetwork(NodeId(0), "", random.Random())
        try:
            return await network.ask(host, method, body, ASK_SECONDS)
        finally:
            await network.close()

    return asyncio.run(ask())


def ask_status(host: str) -> dict[str, Any]:
    """The status document of the cluster that the node at `host` belongs to. Raises DatabaseError."""
    found: dict[str, Any] = json.loads(_ask(host, "status"))
    return found


def _show(
    host: str, *, as_json: bool, watch: bool, tables: Callable[[dict[str, Any]], list[Table]]
) -> None:
    console = Console()
    try:
        status = ask_status(host)
        if as_json:
            typer.echo(json.dumps(status, indent=2))
            return
        if not watch:
            for table in tables(status):
                console.print(table)
            return
        with Live(console=console, refresh_per_second=4) as live:
            while True:
                grid = Table.grid()
                for table in tables(ask_status(host)):
                    grid.add_row(table)
                live.update(grid)
                asyncio.run(asyncio.sleep(WATCH_SECONDS))
    except DatabaseError as error:
        fail(error)
    except KeyboardInterrupt:
        return


@app.command()
def status(
    host: HostOption = DEFAULT_HOST, json_: JsonOption = False, watch: WatchOption = False
) -> None:
    """The cluster as a whole: health, nodes, shards."""
    _show(
        host,
        as_json=json_,
        watch=watch,
        tables=lambda found: [_summary(found), _nodes(found), _shards(found)],
    )


@app.command()
def nodes(
    host: HostOption = DEFAULT_HOST, json_: JsonOption = False, watch: WatchOption = False
) -> None:
    """The nodes: where they are, whether they are alive, what they hold."""
    _show(host, as_json=json_, watch=watch, tables=lambda found: [_nodes(found)])


@app.command()
def shards(
    host: HostOption = DEFAULT_HOST, json_: JsonOption = False, watch: WatchOption = False
) -> None:
    """The shards: leaders, voters, learners, lag."""
    _show(host, as_json=json_, watch=watch, tables=lambda found: [_shards(found)])


@app.command()
def events(
    host: HostOption = DEFAULT_HOST, json_: JsonOption = False, watch: WatchOption = False
) -> None:
    """What happened since the node that serves began to."""
    _show(host, as_json=json_, watch=watch, tables=lambda found: [_events(found)])


@app.command()
def leave(
    node: Annotated[int, typer.Option(help="The node's id.")], host: HostOption = DEFAULT_HOST
) -> None:
    """Move a node's replicas away, and then have it leave. Run this on the machine of any node."""
    _take_out("leave", node, host)


@app.command()
def decommission(
    node: Annotated[int, typer.Option(help="The node's id.")], host: HostOption = DEFAULT_HOST
) -> None:
    """Do without a node that will not come back. Run this on the machine of any other node."""
    _take_out("decommission", node, host)


def _take_out(method: str, node: int, host: str) -> None:
    """Ask for it, and show how far it is until the node is gone."""
    try:
        _ask(host, method, msgspec.msgpack.encode(node))
        with Progress() as progress:
            task: TaskID | None = None
            while True:
                found = ask_status(host)
                shards = found["shards"]
                held = sum(
                    node in (*s["voters"], *s["voters_outgoing"], *s["learners"]) for s in shards
                )
                if task is None:
                    task = progress.add_task(f"node {node}: replicas moved away", total=len(shards))
                progress.update(task, completed=len(shards) - held)
                if all(member["id"] != node for member in found["nodes"]):
                    break
                time.sleep(POLL_SECONDS)
    except DatabaseError as error:
        fail(error)
    typer.echo(f"node {node} has left the cluster; its process can be stopped")


def _summary(found: dict[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    serving = found["serving_node"]
    table.add_row("cluster", f"{found['cluster']} ({found['cluster_id']})")
    table.add_row("serving", "nobody: read only" if serving is None else f"node {serving}")
    table.add_row("under-replicated shards", str(found["under_replicated_shards"]))
    table.add_row("unavailable shards", str(found["unavailable_shards"]))
    return table


def _nodes(found: dict[str, Any]) -> Table:
    table = Table(
        "node",
        Column("address", no_wrap=True),
        "state",
        "alive",
        "serves",
        "holds",
        "leads",
        "silent",
    )
    for node in found["nodes"]:
        table.add_row(
            str(node["id"]), node["address"], node["state"], _yes(node["alive"]), _yes(node["serving"]),
            str(node["replicas"]), str(node["leaders"]), f"{node['silent_seconds']:.1f} s",
        )  # fmt: skip
    return table


def _shards(found: dict[str, Any]) -> Table:
    table = Table(
        "shard", "leader", "voters", "learners", "term", "applied", "lag", "MB", "healthy"
    )
    for shard in found["shards"]:
        lag = max(shard["lag"].values(), default=0)
        table.add_row(
            str(shard["id"]), str(shard["leader"] or "-"), _list(shard["voters"]), _list(shard["learners"]),
            str(shard["term"]), str(shard["applied"]), str(lag), f"{shard['bytes'] / 1e6:.1f}",
            _yes(shard["replicated"]),
        )  # fmt: skip
    return table


def _events(found: dict[str, Any]) -> Table:
    table = Table("seconds ago", "event")
    newest = max((event["at_us"] for event in found["events"]), default=0)
    for event in found["events"]:
        table.add_row(f"{(newest - event['at_us']) / 1e6:.0f}", event["event"])
    return table


def _yes(value: bool) -> str:  # a cell
    return "yes" if value else "no"


def _list(values: list[int]) -> str:
    return ",".join(map(str, values)) or "-"
