"""Nodes inside a test's process."""
