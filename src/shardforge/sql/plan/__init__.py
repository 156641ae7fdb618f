"""Bound statements to physical plans. See `rules` for what is done, `physical` for what comes out."""

from shardforge.sql.plan.planning import Plan, plan

__all__ = ["Plan", "plan"]
