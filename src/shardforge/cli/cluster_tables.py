"""A cluster's state as tables that fit a terminal, from the documents that its nodes answer with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Column, Table


def summary(found: dict[str, Any]) -> Table:
    """The cluster in a few lines."""
    table = Table.grid(padding=(0, 2))
    serving = found["serving_node"]
    table.add_row("cluster", f"{found['cluster']} ({found['cluster_id']})")
    table.add_row("serving", "nobody: read only" if serving is None else f"node {serving}")
    table.add_row("under-replicated shards", str(found["under_replicated_shards"]))
    table.add_row("unavailable shards", str(found["unavailable_shards"]))
    return table


def nodes(found: dict[str, Any]) -> Table:
    """A line a node."""
    table = _wide(
        "node", "address", "state", "votes", "alive", "serves", "holds", "leads", "silent"
    )
    for node in found["nodes"]:
        table.add_row(
            str(node["id"]), node["address"], node["state"], "never" if node.get("observer") else "may",
            _yes(node["alive"]), _yes(node["serving"]), str(node["replicas"]), str(node["leaders"]),
            f"{node['silent_seconds']:.1f} s",
        )  # fmt: skip
    return table


def shards(found: dict[str, Any]) -> Table:
    """A line a shard."""
    table = _wide(
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


def locks(found: dict[str, Any]) -> list[Table]:
    """Locks on tables and rows, a line each."""
    on_tables = Table("table", "session", "mode", "granted")
    for lock in found["tables"]:
        on_tables.add_row(
            lock["table"], str(lock["pid"] or "-"), lock["mode"], _yes(lock["granted"])
        )
    on_rows = Table(
        "row of", Column("key", overflow="fold"), "session", "transaction", "mode", "granted"
    )
    for lock in found["rows"]:
        on_rows.add_row(
            lock["table"] or "-", lock["key"], str(lock["pid"] or "-"), str(lock["transaction"]),
            lock["mode"], _yes(lock["granted"]),
        )  # fmt: skip
    return [on_tables, on_rows]


def events(found: dict[str, Any]) -> Table:
    """A line an event."""
    table = Table("seconds ago", "event")
    newest = max((event["at_us"] for event in found["events"]), default=0)
    for event in found["events"]:
        table.add_row(f"{(newest - event['at_us']) / 1e6:.0f}", event["event"])
    return table


def _wide(*headers: str) -> Table:
    """A table of so many columns that lines between them would not leave room for what is in them."""
    columns = [Column(header, no_wrap=True) for header in headers]
    return Table(
        *columns, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0)
    )


def _yes(value: bool) -> str:  # a cell
    return "yes" if value else "no"


def _list(values: list[int]) -> str:
    return ",".join(map(str, values)) or "-"


def replicas(found: Sequence[dict[str, Any]]) -> Table:
    """A line a shard that was verified."""
    table = Table(
        "shard", "entry", "pairs", "MB", "digest", "equal", Column("replicas", no_wrap=True)
    )
    for shard in found:
        digested = [replica for replica in shard["replicas"] if not replica["error"]]
        usual = next((replica for replica in digested if not replica["differs"]), None)
        pairs, size, digest = ("-", "-", "-")
        if usual is not None:
            pairs, size, digest = (
                str(usual["pairs"]), f"{usual['bytes'] / 1e6:.1f}", usual["digest"][:12]
            )  # fmt: skip
        table.add_row(
            str(shard["id"]), str(shard["index"]), pairs, size, digest, _yes(shard["equal"]),
            ", ".join(_replica(replica) for replica in shard["replicas"]),
        )  # fmt: skip
    return table


def _replica(replica: dict[str, Any]) -> str:
    if replica["error"]:
        return f"{replica['node']}: not compared"
    return f"{replica['node']}: DIFFERS" if replica["differs"] else str(replica["node"])
