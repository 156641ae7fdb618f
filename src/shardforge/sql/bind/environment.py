"""What a statement is bound in: the catalog, the session's settings, and the parameters' types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from shardforge.sql.catalog.snapshot import CatalogSnapshot


@dataclass(slots=True)
class BindEnvironment:
    """Everything that binding may depend on.

    `parameter_types` holds an oid for each `$n`, None or 0 where it is still to be inferred; the binder fills it and
    lets it grow. `text` is the statement's own text, for the positions of errors ("" for stored text: no positions).
    """

    catalog: CatalogSnapshot
    search_path: Sequence[str] = ("public",)
    settings: Any = None
    parameter_types: list[int | None] = field(default_factory=list)
    text: str = ""
    kept_literals: set[int] | None = None
    """Set while the parameters are literals taken out of the text: the binder adds those (from 0) that must go back in,
    because their meaning is not that of their type's input function alone."""
