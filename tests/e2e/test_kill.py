"""A short run of the kill harness; `make kill-soak` is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e import kill_harness

pytestmark = pytest.mark.e2e


def test_kill_nine_loses_nothing_acknowledged(tmp_path: Path) -> None:
    assert kill_harness.run(tmp_path, kills=6, writers=4, seed=7) == []
