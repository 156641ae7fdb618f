"""DDL: statements that change the catalog. `execute_ddl(node, ctx)` carries one out and returns its command tag.

dispatch          which function carries out which parse node
context           DdlContext (the session's side), Ddl (the statement: locks, changes, names)
definition        column and constraint clauses as written;  table_builder: as descriptors
dependencies      what a DROP would break
backfill, bulk    work over a table's rows
rewrite           all rows written anew, beside writers (catchup) or alone;  conversion: what becomes of a row
concurrently      an index built while clients write
"""

from shardforge.sql.ddl.context import DdlContext
from shardforge.sql.ddl.dispatch import create_table_for_query, execute_ddl

__all__ = ["DdlContext", "create_table_for_query", "execute_ddl"]
