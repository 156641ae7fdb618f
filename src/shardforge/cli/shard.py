"""`shardforge shard`: what is done to one shard by hand. What is seen of them is in `shardforge cluster shards`."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from shardforge.cli.asking import DEFAULT_HOST, HostOption, ask_node, use_certificates
from shardforge.cli.output import fail
from shardforge.errors import DatabaseError

app = typer.Typer(help="Split shards by hand.", no_args_is_help=True, callback=use_certificates)

SPLIT_SECONDS = 60.0


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
    """Split a shard in two while it serves. Run this on the machine of a node."""
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
