"""Planning. `plan(bound, catalog)` gives a `Plan`; rules, access paths and join order are in the modules beside."""

from shardforge.sql.plan.planner import Plan, plan

__all__ = ["Plan", "plan"]
