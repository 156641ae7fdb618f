"""`shardforge shard`: what is done to one shard by hand. What is seen of them is in `shardforge cluster shards`."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from shardforge.cli.asking import DEFAULT_HOST, HostOption, ask_node, use_certificates
from shardforge.cli.output import fail
from shardforge.errors import DatabaseError

app = typer.Typer(
    help="Split, merge, move and scatter shards by hand.",
    no_args_is_help=True,
    callback=use_certificates,
)

SPLIT_SECONDS = 60.0
MOVE_SECONDS = 960.0
"""A little longer than the serving node gives it."""


@app.command()
def split(
    shard: Annotated[int, typer.Option(help="The shard's id, as in `cluster shards`.")],
    at: Annotated[
        str,
        typer.Option(
            help="Where the new shard begins: a key in hex; by default where it balances."
        ),
    ] = "",
    host: HostOption = DEFAULT_HOST,
) -> None:
    """Split a shard in two while it serves; only `shard merge` undoes it. Run this on the machine of a node."""
    try:
        key = bytes.fromhex(at)
    except ValueError:
        raise typer.BadParameter(f"not a key in hex: {at}") from None
    try:
        answer = ask_node(host, "shard.split", msgspec.msgpack.encode((shard, key)), SPLIT_SECONDS)
    except DatabaseError as error:
        fail(error)
    else:
        typer.echo(
            f"shard {shard} is split: the upper part is shard {msgspec.msgpack.decode(answer)}"
        )


@app.command()
def move(
    shard: Annotated[int, typer.Option(help="The shard's id, as in `cluster shards`.")],
    source: Annotated[int, typer.Option("--from", help="The node whose vote goes.")],
    target: Annotated[int, typer.Option("--to", help="The node that gets it.")],
    host: HostOption = DEFAULT_HOST,
) -> None:
    """Give one replica of a shard another home while it serves. Run this on the machine of a node."""
    try:
        ask_node(host, "shard.move", msgspec.msgpack.encode((shard, source, target)), MOVE_SECONDS)
    except DatabaseError as error:
        fail(error)
    else:
        typer.echo(f"shard {shard} is on node {target}, and on node {source} no more")


@app.command()
def scatter(
    table: Annotated[
        str, typer.Option(help="Only the shards of this table, as [SCHEMA.]NAME; else all.")
    ] = "",
    database: Annotated[str, typer.Option(help="Where the table is.")] = "shardforge",
    host: HostOption = DEFAULT_HOST,
) -> None:
    """Make replicas and leaderships even over the nodes now. Run this on the machine of a node."""
    schema, _, name = table.rpartition(".")
    body = msgspec.msgpack.encode((database, schema or "public", name))
    try:
        answer = ask_node(host, "shard.scatter", body)
    except DatabaseError as error:
        fail(error)
    else:
        moves, transfers = msgspec.msgpack.decode(answer)
        typer.echo(
            f"{moves} replicas move and {transfers} leaderships are handed over; see `cluster events`"
        )


@app.command()
def merge(
    shard: Annotated[int, typer.Option(help="The shard's id, as in `cluster shards`.")],
    host: HostOption = DEFAULT_HOST,
) -> None:
    """Make the next shard in key order a part of a shard while it serves. Run this on the machine of a node."""
    try:
        answer = ask_node(host, "shard.merge", msgspec.msgpack.encode(shard), SPLIT_SECONDS)
    except DatabaseError as error:
        fail(error)
    else:
        typer.echo(f"shard {msgspec.msgpack.decode(answer)} is a part of shard {shard} now")
