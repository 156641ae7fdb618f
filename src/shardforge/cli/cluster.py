"""`shardforge cluster`: how a cluster is, in tables that fit a terminal or as JSON, and who is to leave it."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.live import Live
from rich.progress import Progress, TaskID, track
from rich.table import Table

from shardforge.cli import cluster_tables as tables
from shardforge.cli.asking import ASK_SECONDS, DEFAULT_HOST, HostOption, ask_node, use_certificates
from shardforge.cli.output import fail
from shardforge.errors import DatabaseError

app = typer.Typer(
    help="Look at a cluster, and take nodes out of it.",
    no_args_is_help=True,
    callback=use_certificates,
)

JsonOption = Annotated[bool, typer.Option("--json", help="Print the status document.")]
WatchOption = Annotated[bool, typer.Option("--watch", help="Show it again every second.")]

WATCH_SECONDS = 1.0
POLL_SECONDS = 0.2
VERIFY_SECONDS = 330.0

EXIT_DIFFERENT = 1
EXIT_INCOMPLETE = 3


def _ask_document(host: str, method: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ask_node(host, method))
    return found


def ask_status(host: str) -> dict[str, Any]:
    """The status document of the cluster that the node at `host` belongs to. Raises DatabaseError."""
    return _ask_document(host, "status")


def _show(
    host: str,
    *,
    as_json: bool,
    watch: bool,
    show: Callable[[dict[str, Any]], list[Table]],
    ask: Callable[[str], dict[str, Any]] = ask_status,
) -> None:
    console = Console()
    try:
        status = ask(host)
        if as_json:
            typer.echo(json.dumps(status, indent=2))
            return
        if not watch:
            for table in show(status):
                console.print(table)
            return
        with Live(console=console, refresh_per_second=4) as live:
            while True:
                grid = Table.grid()
                for table in show(ask(host)):
                    grid.add_row(table)
                live.update(grid)
                asyncio.run(asyncio.sleep(WATCH_SECONDS))
    except DatabaseError as error:
        fail(error)
    except KeyboardInterrupt:
        return


@app.command()
def status(
    host: HostOption = DEFAULT_HOST,
    json_: JsonOption = False,
    watch: WatchOption = False,
    locks: Annotated[
        bool, typer.Option("--locks", help="Who holds and awaits which lock, waiters first.")
    ] = False,
) -> None:
    """The cluster as a whole: health, nodes, shards. With --locks: run it on the machine of a node."""
    if locks:
        ask = partial(_ask_document, method="locks")
        _show(host, as_json=json_, watch=watch, show=tables.locks, ask=ask)
        return
    _show(
        host,
        as_json=json_,
        watch=watch,
        show=lambda found: [tables.summary(found), tables.nodes(found), tables.shards(found)],
    )


@app.command()
def nodes(
    host: HostOption = DEFAULT_HOST, json_: JsonOption = False, watch: WatchOption = False
) -> None:
    """The nodes: where they are, whether they are alive, what they hold."""
    _show(host, as_json=json_, watch=watch, show=lambda found: [tables.nodes(found)])


@app.command()
def shards(
    host: HostOption = DEFAULT_HOST, json_: JsonOption = False, watch: WatchOption = False
) -> None:
    """The shards: leaders, voters, learners, lag."""
    _show(host, as_json=json_, watch=watch, show=lambda found: [tables.shards(found)])


@app.command()
def events(
    host: HostOption = DEFAULT_HOST, json_: JsonOption = False, watch: WatchOption = False
) -> None:
    """What happened since the node that serves began to."""
    _show(host, as_json=json_, watch=watch, show=lambda found: [tables.events(found)])


@app.command()
def verify(host: HostOption = DEFAULT_HOST, json_: JsonOption = False) -> None:
    """Compare all replicas byte for byte, under any load. Run this on the machine of a node.

    Exit code 1 when replicas differ, 3 when some could not be compared.
    """
    try:
        found = list(_verify(host, quiet=json_))
    except DatabaseError as error:
        fail(error)
    equal = all(shard["equal"] for shard in found)
    complete = all(shard["complete"] for shard in found)
    if json_:
        typer.echo(json.dumps({"equal": equal, "complete": complete, "shards": found}, indent=2))
    else:
        Console().print(tables.replicas(found))
        for shard, replica in ((s, r) for s in found for r in s["replicas"] if r["error"]):
            typer.echo(f"shard {shard['id']}, node {replica['node']}: {replica['error']}", err=True)
    if not equal:
        raise typer.Exit(EXIT_DIFFERENT)
    if not complete:
        raise typer.Exit(EXIT_INCOMPLETE)


def _verify(host: str, *, quiet: bool) -> Iterator[dict[str, Any]]:
    """How each shard's replicas compare, with a bar meanwhile."""
    shards = [shard["id"] for shard in ask_status(host)["shards"]]
    console = Console(stderr=True)
    for shard in track(
        shards, "shards compared", console=console, disable=quiet or not console.is_terminal
    ):
        answer = ask_node(host, "verify", msgspec.msgpack.encode(shard), VERIFY_SECONDS)
        yield msgspec.msgpack.decode(answer)


@app.command()
def leave(
    node: Annotated[int, typer.Option(help="The node's id.")],
    host: HostOption = DEFAULT_HOST,
    user: Annotated[
        str, typer.Option(envvar="PGUSER", help="A superuser; PGPASSWORD has the password.")
    ] = "shardforge",
    tls: Annotated[
        Path | None, typer.Option(help="The authorities to trust, a file; use TLS.")
    ] = None,
) -> None:
    """Move a node's replicas away, and then have it leave. Asked of any node, over gRPC."""
    from shardforge.client import connect  # other commands need no gRPC

    def ask() -> None:
        password = os.environ.get("PGPASSWORD")
        with connect(host, user=user, password=password, tls=tls or False) as client:
            client.leave(node, timeout=ASK_SECONDS)

    _take_out(ask, node, host)


@app.command()
def decommission(
    node: Annotated[int, typer.Option(help="The node's id.")], host: HostOption = DEFAULT_HOST
) -> None:
    """Do without a node that will not come back. Run this on the machine of any other node."""
    _take_out(lambda: ask_node(host, "decommission", msgspec.msgpack.encode(node)), node, host)


def _take_out(ask: Callable[[], object], node: int, host: str) -> None:
    """Ask for it, and show how far it is until the node is gone."""
    try:
        ask()
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
    typer.echo(f"node {node} has left the cluster; its process stops by itself")
