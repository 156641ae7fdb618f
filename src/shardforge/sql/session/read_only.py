"""What a read-only transaction refuses, by the names that PostgreSQL gives to commands; what a standby does.

Source: PostgreSQL 15, ExecCheckXactReadOnly (execMain.c), ClassifyUtilityCommandAsReadOnly and CreateCommandTag
(src/backend/tcop/utility.c).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from shardforge.errors import TransactionError
from shardforge.sql.catalog.tablelocks import TableLockMode

if TYPE_CHECKING:
    from shardforge.sql.session.prepared import Prepared

Node = dict[str, Any]

ALLOWED = {"CheckPointStmt", "LockStmt"}
"""Statements carried out like DDL that change nothing a reader sees."""

_STRENGTHS = {
    "LCS_FORKEYSHARE": "FOR KEY SHARE",
    "LCS_FORSHARE": "FOR SHARE",
    "LCS_FORNOKEYUPDATE": "FOR NO KEY UPDATE",
    "LCS_FORUPDATE": "FOR UPDATE",
}
_NAMES = {
    "CreateStmt": "CREATE TABLE",
    "IndexStmt": "CREATE INDEX",
    "CreateSeqStmt": "CREATE SEQUENCE",
    "AlterSeqStmt": "ALTER SEQUENCE",
    "CreateEnumStmt": "CREATE TYPE",
    "AlterEnumStmt": "ALTER TYPE",
    "CreateSchemaStmt": "CREATE SCHEMA",
    "ViewStmt": "CREATE VIEW",
    "TruncateStmt": "TRUNCATE TABLE",
    "CommentStmt": "COMMENT",
    "CreateRoleStmt": "CREATE ROLE",
    "AlterRoleStmt": "ALTER ROLE",
    "AlterRoleSetStmt": "ALTER ROLE",
    "DropRoleStmt": "DROP ROLE",
    "GrantRoleStmt": "GRANT ROLE",
    "CreatedbStmt": "CREATE DATABASE",
    "DropdbStmt": "DROP DATABASE",
    "CreateExtensionStmt": "CREATE EXTENSION",
    "ReindexStmt": "REINDEX",
    "ClusterStmt": "CLUSTER",
    "CreateTableAsStmt": "CREATE TABLE AS",
}
_PREFIXES = {
    "DropStmt": ("DROP", "removeType"),
    "AlterTableStmt": ("ALTER", "objtype"),
    "RenameStmt": ("ALTER", "renameType"),
    "AlterObjectSchemaStmt": ("ALTER", "objectType"),
    "AlterOwnerStmt": ("ALTER", "objectType"),
}


def refusal(command: str, hint: str = "") -> TransactionError:
    """25006 for a command."""
    return TransactionError(
        f"cannot execute {command} in a read-only transaction", "25006", hint=hint
    )


def refuse_writes(prepared: Prepared, hint: str = "") -> None:
    """Raise for a query that changes or locks rows."""
    if all(use.mode is TableLockMode.ACCESS_SHARE for use in prepared.locks):
        return
    command = prepared.kind.upper()
    clauses = prepared.parsed().node.get("SelectStmt", {}).get("lockingClause")
    if clauses:
        command += " " + _STRENGTHS[clauses[0]["LockingClause"]["strength"]]
    raise refusal(command, hint)


def command_name(statement: Mapping[str, Node]) -> str:
    """The command tag of a statement that is not a query."""
    ((name, node),) = statement.items()
    if name == "SelectStmt":
        return "SELECT INTO"
    if name == "VacuumStmt":
        return "VACUUM" if node.get("is_vacuumcmd") else "ANALYZE"
    if name == "GrantStmt":
        return "GRANT" if node.get("is_grant") else "REVOKE"
    if name not in _PREFIXES:
        return _NAMES.get(name, name.removesuffix("Stmt").upper())
    verb, field = _PREFIXES[name]
    kind = node[field]
    if kind in ("OBJECT_COLUMN", "OBJECT_TABCONSTRAINT"):
        kind = node.get("relationType", "OBJECT_TABLE")
    return f"{verb} {kind.removeprefix('OBJECT_').replace('_', ' ')}"
