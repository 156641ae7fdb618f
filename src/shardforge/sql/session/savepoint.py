"""What a savepoint keeps."""

from __future__ import annotations

from dataclasses import dataclass

from shardforge.sql.catalog.snapshot import CatalogSnapshot
from shardforge.sql.execute.deferral import DeferralMark


@dataclass(slots=True)
class Savepoint:
    """What ROLLBACK TO restores."""

    name: str
    mark: int
    settings: int
    overlay: CatalogSnapshot | None
    deferral: DeferralMark
