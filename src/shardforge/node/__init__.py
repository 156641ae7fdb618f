"""A running node: the composition root, and who serves when."""

from shardforge.node.node import Founding, Node

__all__ = ["Founding", "Node"]
