"""Money is moved, numbers are inserted and lists appended to while real nodes are killed, paused and cut off.

`make chaos-soak` does the same for a quarter of an hour.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.chaos_harness import run
from tests.e2e.partitions import partitionable

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(
    ("seed", "only"), [(1, "kill the serving"), (2, "cut the serving"), (3, "pause"), (4, "split")]
)
def test_nothing_is_wrong_while_nodes_are_disturbed(tmp_path: Path, seed: int, only: str) -> None:
    with partitionable() as network:
        run(tmp_path, network, nodes=3, rounds=2, seed=seed, only=only)
