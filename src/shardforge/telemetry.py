"""What a node counts about itself: plain counters and histograms, cheap enough for the hot path. No exporters.

Units are in the names; histograms are of seconds, cumulative on export as Prometheus wants them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

COMPILED: Final = not __file__.endswith(".py")
"""Whether the hot modules, this one among them, run as C extensions (`hatch_build.py`)."""

LATENCY_BOUNDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip


class Labelled(NamedTuple):
    """One figure in several samples, told apart by the values of their labels."""

    labels: tuple[str, ...]
    samples: Mapping[tuple[str, ...], float]


class Histogram:
    """Counts of observations by bucket; `counts[i]` are those <= LATENCY_BOUNDS[i], the last one the rest."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(LATENCY_BOUNDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(LATENCY_BOUNDS, seconds)] += 1
        self.total += seconds

    @property
    def count(self) -> int:
        """How many observations there are."""
        return sum(self.counts)


@dataclass(slots=True)
class Telemetry:
    """One node's figures."""

    connections: int = 0
    connections_total: int = 0
    connections_refused_total: int = 0
    bytes_received_total: int = 0
    bytes_sent_total: int = 0
    statement_errors: dict[tuple[str, str], int] = field(default_factory=dict)
    """By statement kind and SQLSTATE."""
    statement_seconds: dict[str, Histogram] = field(default_factory=dict)
    """By statement kind, successful ones."""
    plan_cache_hits_total: int = 0
    plan_cache_misses_total: int = 0
    transactions_committed_total: int = 0
    transactions_rolled_back_total: int = 0

    def statement_done(self, kind: str, seconds: float) -> None:
        """A statement of `kind` succeeded."""
        histogram = self.statement_seconds.get(kind)
        if histogram is None:
            histogram = self.statement_seconds[kind] = Histogram()
        histogram.observe(seconds)

    def statement_failed(self, kind: str, sqlstate: str) -> None:
        """A statement of `kind` failed."""
        key = (kind, sqlstate)
        self.statement_errors[key] = self.statement_errors.get(key, 0) + 1
