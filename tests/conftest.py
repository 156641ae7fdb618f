"""Hypothesis profiles: quick by default, `HYPOTHESIS_PROFILE=soak` for `make fuzz`. What compiled builds leave out."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

from shardforge.telemetry import COMPILED

settings.register_profile(
    "quick", max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "soak", max_examples=5000, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out, in the compiled build, tests that put another function in the place of a compiled one."""
    if COMPILED:
        for item in items:
            if item.get_closest_marker("interpreted"):
                item.add_marker(pytest.mark.skip(reason="calls are bound in the compiled build"))
