"""What a run counted: transactions, response times, repetitions, errors; and tpmC of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

KINDS = ("new_order", "payment", "order_status", "delivery", "stock_level")
RETRIED = frozenset({"40001", "40P01"})
"""SQLSTATEs after which a terminal repeats its transaction."""
FAILOVER = frozenset({"08003", "08006", "25006", "40003", "57P01", "57P03"})
"""SQLSTATEs that a client may be told when the node that served it is lost."""


@dataclass
class Results:
    """Counters of all terminals together."""

    seconds: float = 0.0
    """Of measurement, the warm-up excluded."""
    response_seconds: dict[str, list[float]] = field(
        default_factory=lambda: {kind: [] for kind in KINDS}
    )
    """Of committed transactions, from the first attempt on."""
    at_home: int = 0
    """Committed ones that wrote rows of one warehouse only, and so of one shard."""
    rolled_back: int = 0
    """New-Orders with an item that there is not."""
    retries: Counter[str] = field(default_factory=Counter)
    """By SQLSTATE."""
    errors: Counter[str] = field(default_factory=Counter)
    """Everything else, by SQLSTATE and message: findings."""
    lost_connections: int = 0
    client_cpu_seconds: float = 0.0

    @property
    def tpmc(self) -> float:
        """New-Orders committed a minute."""
        return len(self.response_seconds["new_order"]) / self.seconds * 60

    @property
    def transactions(self) -> int:
        """All that were committed."""
        return sum(len(times) for times in self.response_seconds.values())

    def percentile_ms(self, kind: str, part: float = 0.9) -> float:
        """The response time in which so many of a kind were answered."""
        times = sorted(self.response_seconds[kind])
        return times[min(len(times) - 1, int(len(times) * part))] * 1000 if times else 0.0

    def share(self, kind: str) -> float:
        """Of the mix."""
        return len(self.response_seconds[kind]) / max(1, self.transactions)

    def lines(self) -> list[str]:
        """For people."""
        kinds = [
            f"  {kind:<13}{self.share(kind):>6.1%}  90 % in {self.percentile_ms(kind):,.1f} ms"
            for kind in KINDS
        ]
        return [
            f"  tpmC {self.tpmc:,.0f}; {self.transactions} transactions in {self.seconds:.0f} s,"
            f" {self.rolled_back} rolled back as specified, client {self.client_cpu_seconds:.1f} CPU s",
            *kinds,
            f"  of one warehouse, and so of one shard: {self.at_home / max(1, self.transactions):.1%}",
            f"  repeated: {dict(self.retries) or 'none'}; errors: {dict(self.errors) or 'none'}"
            + (f"; connections lost: {self.lost_connections}" if self.lost_connections else ""),
        ]
