"""What `plan` may be told of GPUs and machines, and the sweep that it draws: options of the command line, read once."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitpipe.pipeline.cli.terminal import folded, is_terminal, print_json, say

if TYPE_CHECKING:
    from vitpipe.pipeline.plan.planned import StoreFacts
    from vitpipe.pipeline.plan.prices import Machine
    from vitpipe.pipeline.plan.sweep import Swept, SweptPoint
    from vitpipe.pipeline.spec.load import PipelineSpec
    from vitpipe.stages.costs.machines import ClusterFacts

GpuName = Annotated[str | None, typer.Option(metavar="NAME", help="A100, H100, H200 or one of --gpus-file.")]
NumGpus = Annotated[
    int | None, typer.Option(min=1, max=1_000_000, help="GPUs of the cluster; else as many as the YAML asks.")
]
GpuPrice = Annotated[float | None, typer.Option("--price-per-gpu-hour", min=0, max=1e9, help="In any currency.")]
GpusFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="YAML that adds to gpus.yaml, or replaces fields of it.")
]
ClusterFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="YAML of machines: cores, links, store, failures, prices.")
]
SweepText = Annotated[
    list[str] | None,
    typer.Option(
        metavar="A.B=X,Y,...,Z",
        help="Plan a field at several values: workers=8,16,...,512, or checkpoint_every='100,1000 steps'. Its end is "
        "enough: the pretraining's is meant.",
    ),
]
SvgFile = Annotated[Path | None, typer.Option(metavar="FILE", help="With --sweep: draw it there.")]
MaxHours = Annotated[
    float | None, typer.Option(min=0, max=1e9, help="Refuse a plan that takes more, as the queue would run it.")
]
MaxPrice = Annotated[float | None, typer.Option(min=0, max=1e12, help="Refuse a plan that costs more.")]
Why = Annotated[bool, typer.Option("--why", help="Also print every term of what binds each node.")]


@dataclass(frozen=True)
class MachineOptions:
    """GPUs and machines as they were asked for."""

    gpu: str | None
    gpus: int | None
    price: float | None
    gpus_file: Path | None
    cluster_file: Path | None

    def machine(self, spec: "PipelineSpec", cluster: "ClusterFacts | None" = None) -> "Machine":
        """Describe the machines that a plan of this spec is for. UsageError for files and names that say nothing."""
        from vitpipe.pipeline.plan import given_machines, prices

        kinds = given_machines.gpu_kinds(self.gpus_file)
        facts = cluster or given_machines.cluster(self.cluster_file)
        is_told = "cores_per_machine" in facts.model_fields_set or "RAY_ADDRESS" in os.environ
        cores = None if is_told else os.cpu_count() or 1
        made = prices.machine(spec.graph, self.gpu, self.gpus, self.price, kinds, facts, cores)
        return made if made.num_gpus else replace(made, cluster=given_machines.with_measured_core(facts))


def sweep_asked(
    texts: Sequence[str] | None, svg: Path | None, budgets: Mapping[str, float | None], why: bool = False
) -> str | None:
    """Take the one sweep that is asked for, before a spec is read; None for none. UsageError for what goes with none.

    `budgets` are the options that limit a plan, by name; `why` asks for all terms of one.
    """
    from vitpipe.infra.errors import UsageError
    from vitpipe.pipeline.plan.sweep_values import read

    if not texts:
        if svg is not None:
            raise UsageError(f"draw {svg}", "--svg draws a sweep", "add --sweep, such as --sweep workers=8,16,32")
        return None
    if len(texts) > 1:
        raise UsageError("sweep", f"--sweep is given {len(texts)} times", "sweep one field at a time")
    read(texts[0])
    if given := [name for name, limit in budgets.items() if limit is not None]:
        found = f"{' and '.join(given)} would limit one plan, not several"
        raise UsageError(f"sweep {texts[0]}", found, "leave out one or the other")
    if why:
        found = "--why would print every term of one plan, not of several"
        raise UsageError(f"sweep {texts[0]}", found, "leave out one or the other")
    return texts[0]


def show_sweep(
    text: str,
    path: Path,
    overrides: Sequence[str],
    options: MachineOptions,
    facts: "StoreFacts",
    svg: Path | None,
    as_json: bool,
) -> None:
    """Plan one field at several values, and print or draw what each comes to."""
    from vitpipe.pipeline.cli.sweep_chart import sweep_lines

    swept, points, machine = sweep_of(text, path, overrides, options, facts)
    was_there = svg is not None and svg.exists()
    if svg is not None:
        from vitpipe.pipeline.cli.sweep_drawing import sweep_svg  # matplotlib takes a second

        write_svg(svg, sweep_svg(swept, points))
    if as_json:
        print_json(_sweep_json(swept, points, machine))
        return
    for line in sweep_lines(swept, points, "█" if is_terminal() else "#"):
        say(line)
    if svg is not None:
        say(f"drawn: {svg}{', in place of what was there' if was_there else ''}")
    say(folded(machine.assumption(swept.path)))


def sweep_of(
    text: str, path: Path, overrides: Sequence[str], options: MachineOptions, facts: "StoreFacts"
) -> "tuple[Swept, list[SweptPoint], Machine]":
    """Plan the values, and say what machines that is for."""
    from vitpipe.pipeline.plan.sweep import parsed, swept_points
    from vitpipe.pipeline.spec.load import load

    def read(more: Sequence[str]) -> "PipelineSpec":
        return load(path, [*overrides, *more])

    spec = read(())
    machine, swept = options.machine(spec), parsed(text, spec)
    points = swept_points(swept, facts, read, options.machine, machine.cluster)
    return swept, points, machine


def write_svg(path: Path, text: str) -> None:
    """Write a drawing. UsageError where the file cannot be written."""
    from vitpipe.infra.errors import UsageError

    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"draw the sweep to {path}", str(error), "name a file in a folder that is there") from error


def _sweep_json(swept: "Swept", points: "Sequence[SweptPoint]", machine: "Machine") -> dict[str, Any]:
    values = {"path": swept.path, "unit": swept.unit or None, "values": [point.to_json() for point in points]}
    return {"sweep": values, "assumes": machine.assumption(swept.path)}
