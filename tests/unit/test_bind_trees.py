"""Bound trees of statements as text: golden/bind/trees.txt. Look at the difference before accepting it.

A block is the SQL, then what `show` makes of it; blocks are separated by an empty line.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from shardforge.sql.bind.show import show
from tests.bind_catalog import bind, catalog_of

GOLDEN = Path(__file__).parent.parent / "golden" / "bind"
CATALOG = catalog_of((GOLDEN / "schema.sql").read_text("utf-8"))
BLOCKS = [
    tuple(block.split(";\n", 1))
    for block in (GOLDEN / "trees.txt").read_text("utf-8").strip().split("\n\n")
]


@pytest.mark.parametrize(("sql", "expected"), BLOCKS, ids=[block[0][:60] for block in BLOCKS])
def test_tree(sql: str, expected: str) -> None:
    assert show(bind(CATALOG, sql).tree) == expected.rstrip("\n")
