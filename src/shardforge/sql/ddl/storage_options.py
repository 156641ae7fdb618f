"""WITH (...) of tables and indexes: PostgreSQL's storage parameters are checked, kept and mean nothing here; shard_key
and sharding decide where rows live.

Source: PostgreSQL 15, src/backend/access/common/reloptions.c (names and messages).
"""

from __future__ import annotations

from typing import Any, Final

from shardforge.errors import QueryError
from shardforge.sql.catalog.descriptors import Sharding
from shardforge.sql.ddl.context import Node

_AUTOVACUUM: Final = frozenset(
    "autovacuum_" + name
    for name in (
        "enabled", "vacuum_threshold", "vacuum_scale_factor", "vacuum_insert_threshold",
        "vacuum_insert_scale_factor", "analyze_threshold", "analyze_scale_factor", "vacuum_cost_delay",
        "vacuum_cost_limit", "freeze_min_age", "freeze_max_age", "freeze_table_age", "multixact_freeze_min_age",
        "multixact_freeze_max_age", "multixact_freeze_table_age",
    )
)  # fmt: skip
_TABLE: Final = _AUTOVACUUM | {
    "fillfactor", "toast_tuple_target", "parallel_workers", "user_catalog_table", "vacuum_index_cleanup",
    "vacuum_truncate", "log_autovacuum_min_duration",
}  # fmt: skip
_INDEX: Final = frozenset({"fillfactor", "deduplicate_items"})
_OURS: Final = frozenset({"shard_key", "sharding"})


def _text(arg: Any) -> str:
    if arg is None:
        return "true"
    match arg:
        case {"Integer": value}:
            return str(value.get("ival", 0))
        case {"Float": value}:
            return str(value["fval"])
        case {"String": value}:
            return str(value.get("sval", ""))
        case {"Boolean": value}:
            return "true" if value.get("boolval") else "false"
        case {"TypeName": value}:
            return str(value["names"][-1]["String"]["sval"])
        case {"List": {"items": items}}:
            return ",".join(_text(item) for item in items)
    raise QueryError("unrecognized value of a storage parameter", "22023")


def read_options(options: list[Node], *, index: bool = False) -> dict[str, str]:
    """name -> value of a WITH list. Raises: 22023 unknown or out of bounds, 42601 given twice."""
    known = _INDEX if index else _TABLE | _OURS
    found: dict[str, str] = {}
    for option in options:
        element = option["DefElem"]
        name, space = element["defname"], element.get("defnamespace")
        if space == "toast":
            if name not in _TABLE:
                raise QueryError(f'unrecognized parameter "{name}"', "22023")
            continue
        if space is not None:
            raise QueryError(f'unrecognized parameter namespace "{space}"', "22023")
        if name == "oids" and not index:
            if _text(element.get("arg")) not in ("false", "off", "0"):
                raise QueryError("tables declared WITH OIDS are not supported", "0A000")
            continue
        if name not in known:
            raise QueryError(f'unrecognized parameter "{name}"', "22023")
        if name in found:
            raise QueryError(f'parameter "{name}" specified more than once', "22023")
        found[name] = _text(element.get("arg"))
        if name == "fillfactor":
            _check_fillfactor(found[name])
    return found


def _check_fillfactor(value: str) -> None:
    if not value.lstrip("-").isdigit():
        raise QueryError(f'invalid value for integer option "fillfactor": {value}', "22023")
    if not 10 <= int(value) <= 100:
        raise QueryError(
            f'value {value} out of bounds for option "fillfactor"', "22023",
            detail='Valid values are between "10" and "100".',
        )  # fmt: skip


def kept(options: dict[str, str]) -> tuple[str, ...]:
    """The options as pg_class.reloptions shows them."""
    return tuple(f"{name}={value}" for name, value in options.items())


def sharding_of(options: dict[str, str], columns: dict[str, int], default: str) -> Sharding:
    """Where the rows live, from the options and the cluster's default strategy; `columns` maps names to ids."""
    shard_key = options.get("shard_key")
    strategy = options.get("sharding")
    if strategy is not None and strategy not in ("hash", "range"):
        raise QueryError(
            f'invalid value for enum option "sharding": {strategy}', "22023",
            detail='Valid values are "hash" and "range".',
        )  # fmt: skip
    if shard_key is None:
        return Sharding(strategy or default)
    if strategy is not None:
        raise QueryError('"shard_key" and "sharding" cannot be given together', "22023")
    ids = []
    for name in (part.strip() for part in shard_key.split(",")):
        if name not in columns:
            raise QueryError(f'column "{name}" named in shard_key does not exist', "42703")
        ids.append(columns[name])
    if len(set(ids)) != len(ids):
        raise QueryError("a column appears twice in shard_key", "42701")
    return Sharding("colocated", tuple(ids))
