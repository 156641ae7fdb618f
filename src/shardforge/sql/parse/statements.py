"""Scripts to statements: one libpg_query tree each, with locations relative to the statement's own text.

A statement of a longer script is parsed again on its own, so that its tree depends on its text alone and may be
cached by it. Raises QueryError 42601 with PostgreSQL's message and position for what is not SQL.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import msgspec

from shardforge.errors import QueryError, too_deep
from shardforge.sql.parse.libpg_query import SyntaxFailure, parse_json

Node: TypeAlias = dict[str, Any]

_EXPRESSION_PREFIX = "SELECT "
_TYPE_PREFIX = "SELECT NULL::"
_AS_OF = re.compile(r"\bas\s+of\s+system\s+time\b", re.IGNORECASE)
_SHOW_SHARDS = re.compile(
    r"\s*show\s+shards\s+from\s+(table\b.*?)[\s;]*", re.IGNORECASE | re.DOTALL
)
_AS_OF_HINT = (
    "SET shardforge.as_of_system_time = '-10s' reads the past; PostgreSQL's grammar knows no AS OF."
)


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement: `node` has a single key, the parser's node name. `offset`: characters before it in the script."""

    node: Node
    text: str
    offset: int = 0


class _RawStatement(msgspec.Struct):
    stmt: Node
    stmt_location: int = 0
    stmt_len: int = 0


class _Tree(msgspec.Struct):
    stmts: list[_RawStatement]


_decode = msgspec.json.Decoder(_Tree).decode


def char_position(text: str, location: int) -> int:
    """The 1-based character position of a byte offset into `text`; 0 for no location."""
    if location < 0:
        return 0
    if text.isascii():
        return location + 1
    return len(text.encode("utf-8")[:location].decode("utf-8", "ignore")) + 1


def _tree(text: str, encoded: bytes) -> list[_RawStatement]:
    if b"\0" in encoded:
        raise QueryError('invalid byte sequence for encoding "UTF8": 0x00', "22021")
    result = parse_json(encoded)
    if isinstance(result, SyntaxFailure):
        hint = _AS_OF_HINT if _AS_OF.search(text) else ""
        raise QueryError(result.message, "42601", position=result.position, hint=hint)
    try:
        return _decode(result).stmts
    except RecursionError:
        raise too_deep() from None


def parse(text: str) -> list[Statement]:
    """The statements of a script, in order; empty ones are left out."""
    encoded = text.encode("utf-8", "surrogatepass")
    shown = _SHOW_SHARDS.fullmatch(text)
    if shown is not None:
        return [_show_shards(text, shown[1])]
    found = _tree(text, encoded)
    if len(found) == 1 and not found[0].stmt_location and not found[0].stmt_len:
        return [Statement(found[0].stmt, text)]
    statements = []
    for raw in found:
        start = raw.stmt_location
        end = start + raw.stmt_len if raw.stmt_len else len(encoded)
        part = encoded[start:end]
        own = part.decode("utf-8")
        node = raw.stmt if start == 0 else _tree(own, part)[0].stmt
        statements.append(Statement(node, own, len(encoded[:start].decode("utf-8"))))
    return statements


def _show_shards(text: str, table: str) -> Statement:
    """SHOW SHARDS FROM TABLE, which PostgreSQL's grammar does not know: what follows FROM is one table's query."""
    query = _tree(text, table.encode("utf-8", "surrogatepass"))[0].stmt
    relation = query["SelectStmt"]["fromClause"][0]["RangeVar"]
    return Statement({"VariableShowStmt": {"name": "shards", "relation": relation}}, text)


@lru_cache(maxsize=1024)
def parse_expression(text: str) -> Node:
    """The tree of one scalar expression, such as a stored default. The tree is shared: do not change it."""
    node = parse(_EXPRESSION_PREFIX + text)[0].node
    target: Node = node["SelectStmt"]["targetList"][0]["ResTarget"]["val"]
    return target


@lru_cache(maxsize=1024)
def parse_query(text: str) -> Node:
    """The tree of one stored query, such as a view's. The tree is shared: do not change it."""
    return parse(text)[0].node


def parse_type_name(text: str) -> Node:
    """The TypeName node of a type written as SQL, such as `numeric(10,2)[]`."""
    try:
        statements = parse(_TYPE_PREFIX + text)
        (target,) = statements[0].node["SelectStmt"]["targetList"]
        name: Node = target["ResTarget"]["val"]["TypeCast"]["typeName"]
    except (QueryError, ValueError, KeyError, IndexError):
        raise QueryError(f'invalid type name "{text}"', "42601") from None
    return name
