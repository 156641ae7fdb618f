"""A table of figures side by side, printed as it grows and kept as JSON."""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Sequence

from bench.load import results_folder


class Report:
    """Rows of one figure a server, with the ratio of ours (the last one) to each other's."""

    def __init__(self, name: str, servers: Sequence[str]) -> None:
        self._name = name
        self._servers = servers
        self._rows: dict[str, object] = {
            "machine": platform.platform(),
            "python": platform.python_version(),
        }
        self._print("", *servers, *(f"/ {other}" for other in servers[:-1]))

    def rounds(self, name: str, rounds: Sequence[Sequence[float]]) -> None:
        """Medians of rounds, and the medians of the rounds' ratios."""
        medians = [statistics.median(values) for values in zip(*rounds, strict=True)]
        ratios = [
            statistics.median(values[-1] / values[at] for values in rounds)
            for at in range(len(self._servers) - 1)
        ]
        self._add(name, medians, ratios)

    def figures(self, name: str, values: Sequence[float]) -> None:
        """One measurement a server."""
        self._add(name, values, [values[-1] / other for other in values[:-1]])

    def note(self, name: str, value: object) -> None:
        """Something that is no comparison."""
        self._rows[name] = value
        print(f"{name}: {value}", flush=True)

    def save(self) -> None:
        """Keep it under bench/results."""
        path = results_folder() / f"{self._name}.json"
        path.write_text(json.dumps(self._rows, indent=2) + "\n", encoding="utf-8")

    def _add(self, name: str, values: Sequence[float], ratios: Sequence[float]) -> None:
        others = self._servers[:-1]
        self._rows[name] = {
            **{s: round(v, 3) for s, v in zip(self._servers, values, strict=True)},
            **{f"ratio to {s}": round(r, 3) for s, r in zip(others, ratios, strict=True)},
        }
        self._print(name, *(f"{value:,.2f}" for value in values), *(f"{r:.2f}" for r in ratios))

    @staticmethod
    def _print(name: str, *cells: str) -> None:
        print(f"{name:<36}" + "".join(f"{cell:>16}" for cell in cells), flush=True)
