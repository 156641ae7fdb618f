"""ALTER TABLE ... SET and RESET (...): options are kept; where rows live is changed by rewriting them.

Raises what CREATE TABLE raises for the same options, before any row is read.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from shardforge.errors import unsupported
from shardforge.sql.catalog.descriptors import Sharding, Table
from shardforge.sql.ddl import table_builder as build
from shardforge.sql.ddl.alter_constraints import check_shard_key
from shardforge.sql.ddl.context import Ddl, Node
from shardforge.sql.ddl.conversion import copied_columns
from shardforge.sql.ddl.rewrite import rewrite
from shardforge.sql.ddl.storage_options import kept, read_options, sharding_of

_PLACING: Final = frozenset({"shard_key", "sharding"})
_NUMERIC: Final = 1700


def sharding_for(ddl: Ddl, table: Table, options: dict[str, str]) -> Sharding:
    """Where a table's rows live by these options. Raises: 42703, 42701, 22023, 42P16, 42704, 0A000."""
    by_name = {column.name: column.id for column in build.visible_columns(table)}
    sharding = sharding_of(options, by_name, ddl.store.default_sharding)
    for column in table.columns:
        if column.id in sharding.shard_key:
            build.require_order(column.type_oid)
            if column.type_oid == _NUMERIC:
                raise unsupported("a shard_key of type numeric")
    check_shard_key(table, sharding)
    return sharding


async def set_options(ddl: Ddl, table: Table, command: Node) -> Table:
    """SET (...). Of shard_key and sharding the one that is set takes the place of the other."""
    given = read_options(command["def"]["List"]["items"])
    options = dict(option.split("=", 1) for option in table.options)
    if _PLACING & given.keys():
        options = {name: value for name, value in options.items() if name not in _PLACING}
    options.update(given)
    return await _put(ddl, table, options, placed=bool(_PLACING & given.keys()))


async def reset_options(ddl: Ddl, table: Table, command: Node) -> Table:
    """RESET (...); without shard_key and sharding rows live as the configuration says."""
    names = {item["DefElem"]["defname"] for item in command["def"]["List"]["items"]}
    options = dict(option.split("=", 1) for option in table.options)
    left = {name: value for name, value in options.items() if name not in names}
    return await _put(ddl, table, left, placed=bool(_PLACING & options.keys() & names))


async def _put(ddl: Ddl, table: Table, options: dict[str, str], *, placed: bool) -> Table:
    new = replace(table, options=kept(options))
    if placed:
        sharding = sharding_for(ddl, table, options)
        if sharding != table.sharding:
            new = replace(new, sharding=sharding)
            return await rewrite(ddl, table, new, copied_columns(table, new))
    await ddl.lock_exclusively(table)
    new = replace(new, version=table.version + 1)
    await ddl.put(new)
    return new
