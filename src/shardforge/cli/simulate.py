"""`shardforge sim`: a whole cluster in this process, in virtual time, from a seed; for developers of the database."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from shardforge.cli.output import fail
from shardforge.errors import QueryError


def simulate(
    seed: Annotated[int, typer.Option(help="The first seed.")] = 1,
    runs: Annotated[int, typer.Option(min=1, help="How many seeds, one after the other.")] = 1,
    minutes: Annotated[
        float, typer.Option(min=0.01, help="Virtual minutes of faults a run.")
    ] = 1.0,
    workload: Annotated[
        str, typer.Option(help="register, append, bank, counter, ddl or all.")
    ] = "all",
    faults: Annotated[
        str, typer.Option(help="Kinds of faults, with commas between them; all or none.")
    ] = "all",
    nodes: Annotated[int, typer.Option(min=1, max=9, help="Nodes in the cluster.")] = 3,
    observers: Annotated[int, typer.Option(min=0, help="How many of them never vote.")] = 0,
) -> None:
    """Simulate a cluster under faults. Exit code 1 when something is wrong; the same seed shows it again."""
    from shardforge.sim.faults import KINDS
    from shardforge.sim.run import simulate as simulate_one
    from shardforge.sim.workloads import WORKLOADS

    works = _chosen("--workload", workload, list(WORKLOADS))
    kinds = _chosen("--faults", faults, list(KINDS)) if faults != "none" else []
    if observers >= nodes:
        fail(QueryError("--observers: somebody has to vote", "22023"))
    wrong = 0
    for number in range(seed, seed + runs):
        for work in works:
            began = time.monotonic()
            report = simulate_one(
                number,
                minutes=minutes,
                workload=work,
                faults=kinds,
                nodes=nodes,
                observers=observers,
            )
            told = " ".join(f"{name} {times}" for name, times in sorted(report.answers.items()))
            typer.echo(
                f"seed {number} {work}: {report.seconds:.0f} s in {time.monotonic() - began:.1f} s, "
                f"{report.faults} faults, {report.deliveries} frames, answers: {told}, trace {report.trace:08x}"
            )
            for violation in report.violations:
                typer.echo(f"  {violation}")
            wrong += bool(report.violations)
    raise typer.Exit(1 if wrong else 0)


def _chosen(option: str, text: str, known: list[str]) -> list[str]:
    chosen = known if text == "all" else text.split(",")
    for name in chosen:
        if name not in known:
            fail(QueryError(f'{option}: "{name}" is not one of all, {", ".join(known)}', "22023"))
    return chosen
