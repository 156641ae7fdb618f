"""Where a shard that has grown too large is cut."""

from __future__ import annotations

import random

import pytest

from shardforge.cluster.splitpoint import Survey, boundary, choose, halving


@pytest.mark.parametrize(
    ("below", "above", "cut"),
    [(b"h1abc", b"h1abd", b"h1abd"), (b"h1zzz", b"h2a", b"h2"), (b"g\x00\x01x", b"g\x00\x02a", b"g\x00\x02")],
)  # fmt: skip
def test_a_boundary_is_the_shortest_prefix_that_tells_neighbours_apart(
    below: bytes, above: bytes, cut: bytes
) -> None:
    assert boundary(below, above) == cut
    assert below < cut <= above


def _surveyed(keys: list[tuple[bytes, int]], expected: int = 1) -> Survey:
    survey = Survey(expected)
    for key, size in sorted(keys):
        survey.add(key, size)
    return survey


def _shares(keys: list[tuple[bytes, int]], at: bytes) -> float:
    total = sum(size for _, size in keys)
    return sum(size for key, size in keys if key < at) / total


def test_the_halves_weigh_about_the_same_whatever_the_keys_are() -> None:
    for seed in range(50):
        rolled = random.Random(seed)
        keys = [(b"h%05d" % n, rolled.randint(1, 200)) for n in range(rolled.randint(400, 2000))]
        survey = _surveyed(keys, sum(size for _, size in keys))
        at = choose(survey.candidates, survey.total, b"", b"s")
        assert at is not None
        assert 0.48 < _shares(keys, at) < 0.52


def test_rows_of_one_shard_key_stay_together() -> None:
    keys = [
        (b"g" + hashed.to_bytes(2) + b"%d" % row, 100) for hashed in range(9) for row in range(50)
    ]
    survey = _surveyed(keys, 45_000)
    at = choose(survey.candidates, survey.total, b"g", b"h")
    assert at is not None
    assert len(at) == 3
    assert 0.4 < _shares(keys, at) < 0.6


def test_one_shard_key_that_outgrows_a_shard_is_cut() -> None:
    keys = [(b"g\x00\x01" + b"%05d" % row, 100) for row in range(900)] + [(b"g\x00\x02", 10)]
    survey = _surveyed(keys, 90_000)
    at = choose(survey.candidates, survey.total, b"g", b"h")
    assert at is not None
    assert 0.45 < _shares(keys, at) < 0.55


def test_versions_of_one_key_are_never_cut_apart() -> None:
    survey = Survey(1)
    for _ in range(100):
        survey.add(b"h1", 100)
    assert choose(survey.candidates, survey.total, b"", b"s") is None


def test_a_boundary_at_the_edge_of_the_span_is_none() -> None:
    survey = _surveyed([(b"a", 1), (b"h2", 1)])
    assert choose(survey.candidates, survey.total, b"", b"h") is None


# ---- by requests -----------------------------------------------------------------------------------


def test_requests_halve_between_shard_keys() -> None:
    rolled = random.Random(1)
    sample = sorted(b"g" + rolled.randbytes(2) + b"key" for _ in range(256))
    at = halving(sample, b"g", b"h")
    assert at is not None
    assert len(at) <= 3
    below = sum(key < at for key in sample)
    assert 100 <= below <= 156


def test_requests_for_a_part_of_the_keys_are_cut_there() -> None:
    sample = sorted(b"h%05d" % (n % 40) for n in range(200))
    at = halving(sample, b"h", b"i")
    assert at is not None
    assert sum(key < at for key in sample) == 100


def test_what_is_asked_of_one_shard_key_is_not_torn_apart() -> None:
    hot = [b"g\x10\x20" + bytes([n]) for n in range(200)]
    assert halving(sorted([*hot, b"g\x11\x00z", b"g\x01\x00a"]), b"g", b"h") is None
    assert halving([b"h7"] * 200, b"h", b"i") is None, "one key"
    assert halving([], b"h", b"i") is None
    aside = [b"g\x50\x00" + bytes([n]) for n in range(190)]
    balanced = halving(sorted(hot + aside), b"g", b"h")
    assert balanced == b"g\x50"
    assert halving(sorted(hot + aside), b"g\x50", b"h") is None, "the boundary is not inside"
