"""Which function carries out which DDL statement, and what is refused by name.

Adding a statement: a function `(ddl, node) -> command tag` in a module of this package, and a line in `_STATEMENTS`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from shardforge.errors import unsupported
from shardforge.sql.bind.tree import OutputColumn
from shardforge.sql.catalog.typenames import naming_types
from shardforge.sql.ddl import create_table as create_table_module
from shardforge.sql.ddl.alter_object import alter_owner, alter_schema, rename
from shardforge.sql.ddl.alter_table import alter_table
from shardforge.sql.ddl.comment import comment
from shardforge.sql.ddl.context import Ddl, DdlContext, Node
from shardforge.sql.ddl.create_index import create_index, reindex
from shardforge.sql.ddl.create_table import create_table
from shardforge.sql.ddl.databases import create_database, create_extension, drop_database
from shardforge.sql.ddl.drop import drop
from shardforge.sql.ddl.enum_types import alter_enum, create_enum
from shardforge.sql.ddl.maintenance import checkpoint, cluster, lock_table, vacuum
from shardforge.sql.ddl.roles import (
    alter_role,
    alter_role_settings,
    create_role,
    drop_role,
    grant,
    grant_role,
)
from shardforge.sql.ddl.schema_ddl import create_schema
from shardforge.sql.ddl.sequence_ddl import alter_sequence, create_sequence
from shardforge.sql.ddl.truncate import truncate
from shardforge.sql.ddl.view_ddl import create_view

Run = Callable[[Ddl, Node], Awaitable[str]]


async def _create_schema(ddl: Ddl, node: Node) -> str:
    return await create_schema(ddl, node, _run)


_STATEMENTS: Final[dict[str, Run]] = {
    "CreateStmt": create_table,
    "AlterTableStmt": alter_table,
    "IndexStmt": create_index,
    "ReindexStmt": reindex,
    "CreateEnumStmt": create_enum,
    "AlterEnumStmt": alter_enum,
    "DropStmt": drop,
    "RenameStmt": rename,
    "AlterObjectSchemaStmt": alter_schema,
    "AlterOwnerStmt": alter_owner,
    "CreateSeqStmt": create_sequence,
    "AlterSeqStmt": alter_sequence,
    "CreateSchemaStmt": _create_schema,
    "ViewStmt": create_view,
    "TruncateStmt": truncate,
    "CommentStmt": comment,
    "CreateRoleStmt": create_role,
    "AlterRoleStmt": alter_role,
    "AlterRoleSetStmt": alter_role_settings,
    "DropRoleStmt": drop_role,
    "GrantStmt": grant,
    "GrantRoleStmt": grant_role,
    "CreatedbStmt": create_database,
    "DropdbStmt": drop_database,
    "CreateExtensionStmt": create_extension,
    "VacuumStmt": vacuum,
    "CheckPointStmt": checkpoint,
    "ClusterStmt": cluster,
    "LockStmt": lock_table,
}

_REFUSED: Final = {
    "AlterDatabaseStmt": "ALTER DATABASE with options",
    "AlterDatabaseSetStmt": "ALTER DATABASE SET",
    "AlterDefaultPrivilegesStmt": "ALTER DEFAULT PRIVILEGES",
    "AlterDomainStmt": "ALTER DOMAIN",
    "AlterFunctionStmt": "ALTER FUNCTION",
    "AlterSystemStmt": "ALTER SYSTEM",
    "CompositeTypeStmt": "CREATE TYPE",
    "CreateAmStmt": "CREATE ACCESS METHOD",
    "CreateCastStmt": "CREATE CAST",
    "CreateConversionStmt": "CREATE CONVERSION",
    "CreateDomainStmt": "CREATE DOMAIN",
    "CreateEventTrigStmt": "CREATE EVENT TRIGGER",
    "CreateFdwStmt": "CREATE FOREIGN DATA WRAPPER",
    "CreateForeignServerStmt": "CREATE SERVER",
    "CreateForeignTableStmt": "CREATE FOREIGN TABLE",
    "CreateFunctionStmt": "CREATE FUNCTION",
    "CreateOpClassStmt": "CREATE OPERATOR CLASS",
    "CreatePLangStmt": "CREATE LANGUAGE",
    "CreatePolicyStmt": "CREATE POLICY",
    "CreatePublicationStmt": "CREATE PUBLICATION",
    "CreateRangeStmt": "CREATE TYPE ... AS RANGE",
    "CreateStatsStmt": "CREATE STATISTICS",
    "CreateSubscriptionStmt": "CREATE SUBSCRIPTION",
    "CreateTableSpaceStmt": "CREATE TABLESPACE",
    "CreateTransformStmt": "CREATE TRANSFORM",
    "CreateTrigStmt": "CREATE TRIGGER",
    "CreateUserMappingStmt": "CREATE USER MAPPING",
    "DefineStmt": "this kind of CREATE",
    "DropOwnedStmt": "DROP OWNED",
    "DropTableSpaceStmt": "DROP TABLESPACE",
    "ImportForeignSchemaStmt": "IMPORT FOREIGN SCHEMA",
    "ReassignOwnedStmt": "REASSIGN OWNED",
    "RefreshMatViewStmt": "REFRESH MATERIALIZED VIEW",
    "RuleStmt": "CREATE RULE",
    "SecLabelStmt": "SECURITY LABEL",
}

_INSTEAD: Final = {
    "CreateDomainStmt": "Use its base type, with the constraint at the column.",
    "RefreshMatViewStmt": "Use a table that CREATE TABLE AS fills.",
}


async def _run(ddl: Ddl, statement: Node) -> str:
    ((name, node),) = statement.items()
    function = _STATEMENTS.get(name)
    if function is None:
        what = _REFUSED.get(name, name.removesuffix("Stmt"))
        raise unsupported(what, hint=_INSTEAD.get(name, ""))
    return await function(ddl, node)


async def execute_ddl(node: Node, ctx: DdlContext) -> str:
    """Carry out a DDL statement in the session's transaction; returns the command tag."""
    with naming_types(ctx.catalog, ctx.search_path):
        return await _run(Ddl(ctx), node)


async def create_table_for_query(
    into: Node, columns: Sequence[OutputColumn], ctx: DdlContext, if_not_exists: bool = False
) -> bool:
    """Make the table of CREATE TABLE AS or SELECT INTO; False when it exists already and may."""
    return await create_table_module.create_table_for_query(
        Ddl(ctx), into, columns, if_not_exists=if_not_exists
    )
