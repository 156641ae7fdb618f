"""Shards: half-open spans of the key space, each one Raft group with its own log and engine.

`descriptor`, `command` and `pending` decide (PURE); `replica` and `host` wait for the log. Nothing here
knows what a transaction's isolation level or a table is.
"""
