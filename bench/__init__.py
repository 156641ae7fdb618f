"""Benchmarks: each runs its peer in the same run and prints ratios. Nothing here decides a test."""
