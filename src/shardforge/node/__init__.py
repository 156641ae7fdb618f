"""A running node: the composition root, and who serves when."""

from shardforge.node.node import Node

__all__ = ["Node"]
