"""Text to syntax: PostgreSQL's own parser, libpg_query, from the library inside postgast's wheel.

`parse` gives each statement as the parser's JSON tree, decoded: `{"SelectStmt": {...}}`. Field values equal to their
default (0, false, empty) are left out, as the parser leaves them out. The tree is PostgreSQL 18's; what only newer
versions accept is refused where it is bound.
"""

from shardforge.sql.parse.parser import Node, Statement, parse

__all__ = ["Node", "Statement", "parse"]
