"""The verbs that look at a spec before anything runs: what it would do and cost, and how it compares with the paper."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitpipe.pipeline.cli.plan_options import (
    ClusterFile,
    GpuName,
    GpuPrice,
    GpusFile,
    MachineOptions,
    MaxHours,
    MaxPrice,
    NumGpus,
    SvgFile,
    SweepText,
    Why,
    show_sweep,
    sweep_asked,
    sweep_of,
)
from vitpipe.pipeline.cli.terminal import complain, folded, print_json, say

if TYPE_CHECKING:
    from vitpipe.pipeline.plan.budgets import Spending
    from vitpipe.pipeline.plan.planned import Plan
    from vitpipe.pipeline.plan.prices import Machine
    from vitpipe.pipeline.plan.schedule import Schedule
    from vitpipe.pipeline.plan.sweep import Swept, SweptPoint
    from vitpipe.pipeline.spec.load import PipelineSpec

looks = typer.Typer()

DEVIATES = 3
OTHER_WORKERS = "resources.workers=1,2,...,4096"
"""What a budget that is not met is tried with."""

Spec = Annotated[Path, typer.Argument(help="The YAML.", show_default=False)]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[a.b=c ...]", help="nodes.backbone.config.seed=1", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")]
VerifySources = Annotated[
    bool,
    typer.Option("--verify-sources", help="Compare sources by digest with what was taken, not by names and sizes."),
]


@looks.command()
def plan(
    spec: Spec,
    overrides: Overrides = None,
    gpu: GpuName = None,
    gpus: NumGpus = None,
    price: GpuPrice = None,
    gpus_file: GpusFile = None,
    cluster_file: ClusterFile = None,
    sweep: SweepText = None,
    svg: SvgFile = None,
    max_hours: MaxHours = None,
    max_price: MaxPrice = None,
    why: Why = False,
    verify_sources: VerifySources = False,
    as_json: AsJson = False,
) -> None:
    """Say of each node what would be done and why, what it will cost, and how it deviates from the paper.

    Images that lie elsewhere are taken to be as many as in the data set that `vars.paper` names (see conform).
    """
    swept = sweep_asked(sweep, svg, {"--max-hours": max_hours, "--max-price": max_price}, why)
    from vitpipe.infra.storage.opening import open_store
    from vitpipe.pipeline.cli.outlook import standstill
    from vitpipe.pipeline.cli.plan_page import show_plan, show_sum
    from vitpipe.pipeline.plan import prices
    from vitpipe.pipeline.plan.budgets import Spending
    from vitpipe.pipeline.plan.costed import costed
    from vitpipe.pipeline.plan.decide import refusal
    from vitpipe.pipeline.plan.schedule import scheduled
    from vitpipe.pipeline.plan.survey import survey
    from vitpipe.pipeline.spec.load import load

    found = load(spec, given := list(overrides or ()))
    mind_run_beside(spec, found, given)
    options = MachineOptions(gpu, gpus, price, gpus_file, cluster_file)
    machine = options.machine(found)
    facts = survey(open_store(found.uri), found.graph, verify_sources, reuse=found.reuse)
    if swept is not None:
        return show_sweep(swept, spec, given, options, facts, svg, as_json)
    made = costed(found, facts, machine)
    total, stands_still = prices.total(made, machine), standstill(made, refusal(made, found.uri))
    sweeps = partial(sweep_of, path=spec, overrides=given, options=options, facts=facts)
    _keep_to(Spending(max_hours, max_price), made, total["price"], found, machine, sweeps)
    schedule = scheduled(made, found.graph, machine)
    if as_json:
        facts_of_run = {"total": total, "assumes": machine.assumption(), "nothing_would_start": stands_still}
        print_json({"run": found.uri, **made.to_json(), **facts_of_run, "schedule": schedule.to_json(machine)})
    else:
        show_plan(made, found.uri, why, stands_still)
        show_sum(total, machine, schedule)


def _keep_to(
    limit: "Spending",
    made: "Plan",
    price: float | None,
    spec: "PipelineSpec",
    machine: "Machine",
    sweep: "Callable[[str], tuple[Swept, list[SweptPoint], Machine]]",
) -> None:
    """UsageError where a plan takes or costs more, with what would not."""
    from vitpipe.infra.errors import UsageError
    from vitpipe.pipeline.plan.schedule import scheduled

    def workers(id: str) -> "Sequence[SweptPoint]":
        try:
            return sweep(f"nodes.{spec.graph.nodes[id].name}.{OTHER_WORKERS}")[1]
        except UsageError:  # none of them can be planned
            return ()

    def schedules(plan: "Plan", num_gpus: int) -> "Schedule":
        return scheduled(plan, spec.graph, replace(machine, num_gpus=num_gpus))

    limit.check(made, price, machine.num_gpus, workers, schedules)


@looks.command()
def conform(
    spec: Spec,
    overrides: Overrides = None,
    data: Annotated[
        str | None, typer.Option(metavar="NAME", help="ImageNet-21k, ImageNet or JFT-300M, instead of `vars.paper`.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Compare each recipe with the paper's, field by field: equal, differs, or unstated with our assumption.

    A pretraining is held against the row of Table 3 that has its variant and the data set named by
    `vars: {paper: ImageNet-21k}` in the YAML (no fingerprint sees it) or by the name of its data
    (`needs: {shards: imagenet-21k}`); without either, against the nearest row.
    With `vars: {recipe: augreg-i21k}` it is held against one of the authors' later recipes.
    A fine-tuning is held against Table 4 by the name of its data: `needs: {data: cifar10}`.
    Ends with 3 when a field differs.
    """
    from vitpipe.pipeline.plan import conform as conforming
    from vitpipe.pipeline.spec.load import load

    found = load(spec, overrides or ())
    recipe = conforming.claimed_recipe(found.vars) if data is None else None
    compared = conforming.conform(found.graph, conforming.claimed_data(found.vars, data), recipe)
    deviations = sum(len(one.compared.deviations) for one in compared)
    if as_json:
        print_json({"run": found.uri, "deviations": deviations, "nodes": [one.to_json() for one in compared]})
    else:
        for one in compared:
            say("\n".join(map(folded, one.lines())))
        if not compared:
            say(f"{spec}: no node pretrains, or fine-tunes from weights; the paper has no recipe for the rest")
    return DEVIATES if deviations else 0


def mind_run_beside(path: Path, spec: "PipelineSpec", overrides: Sequence[str]) -> None:
    """Say where there is a run beside the YAML, and none where it will be: typed in another folder, all begins anew."""
    from vitpipe.pipeline.store.contents import is_run
    from vitpipe.pipeline.store.runs import run_beside

    beside = run_beside(path, spec, overrides)
    if beside and is_run(beside):
        complain(f"{spec.uri} is no run yet; there is {beside.uri}, beside {path}: type this there to go on with it")
