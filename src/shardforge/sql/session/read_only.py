"""What a read-only transaction refuses, by the names that PostgreSQL gives to commands; what a standby does.

Source: PostgreSQL 15, ExecCheckXactReadOnly (execMain.c), ClassifyUtilityCommandAsReadOnly and CreateCommandTag
(src/backend/tcop/utility.c).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from shardforge.errors import ConsensusError, TransactionError
from shardforge.sql.catalog.tablelocks import TableLockMode

if TYPE_CHECKING:
    from shardforge.sql.session.prepared import Prepared
    from shardforge.sql.session.session import Session

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


def refusal(command: str) -> TransactionError:
    """25006 for a command."""
    return TransactionError(f"cannot execute {command} in a read-only transaction", "25006")


def refuse_writes(prepared: Prepared) -> None:
    """Raise for a query that changes or locks rows."""
    if all(use.mode is TableLockMode.ACCESS_SHARE for use in prepared.locks):
        return
    command = prepared.kind.upper()
    clauses = prepared.parsed().node.get("SelectStmt", {}).get("lockingClause")
    if clauses:
        command += " " + _STRENGTHS[clauses[0]["LockingClause"]["strength"]]
    raise refusal(command)


def check_standby(session: Session, prepared: Prepared) -> None:
    """On a node that nobody leads: nothing is written, and tables are read only by those who accept the past."""
    if prepared.kind != "select":
        raise TransactionError(
            f"cannot execute {prepared.kind.upper()} in a read-only transaction", "25006",
            detail="This node cannot reach a majority of the cluster.",
        )  # fmt: skip
    level = session.settings.show("shardforge.consistency_level")
    if not prepared.locks or level == "eventual":
        return
    instance = session.instance
    age_ms = instance.clock.monotonic_ns() // 1_000_000 - instance.standby_us // 1000
    if level == "strong" or age_ms > instance.config.replication.max_staleness_ms:
        raise ConsensusError(
            f"this node cannot reach a majority of the cluster, which a {level} read needs",
            detail=""
            if level == "strong"
            else "What it holds is older than replication.max_staleness_ms.",
            hint="SET shardforge.consistency_level = 'eventual' reads what this node holds,"
            f" as it was {age_ms / 1000:.1f} seconds ago.",
        )


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
