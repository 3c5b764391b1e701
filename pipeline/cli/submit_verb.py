"""The verb that gives a run to a cluster: as a Ray job, or as a job of Slurm that brings its own Ray."""

import dataclasses
import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from vitpipe.infra.errors import UsageError
from vitpipe.pipeline.cli import terminal
from vitpipe.pipeline.cli.plan_verbs import AsJson, Overrides, Spec

if TYPE_CHECKING:
    from vitpipe.pipeline.cli.slurm_wishes import Wishes
    from vitpipe.pipeline.spec.load import PipelineSpec

submissions = typer.Typer()

Words = list[str] | None


def _option(metavar: str, help: str, min: int | None = None) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(metavar=metavar, help=help, show_default=False, min=min)
    return option


@submissions.command()
def submit(
    spec: Spec,
    overrides: Overrides = None,
    address: Annotated[str | None, _option("URL", "The cluster's jobs API, such as http://head:8265.")] = None,
    replace: Annotated[Words, _option("NODE", "As for run.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Stay until the job ends, and end with its code.")] = False,
    slurm: Annotated[bool, typer.Option("--slurm", help="As a job of Slurm, which starts Ray on its nodes.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print Slurm's script.")] = False,
    nodes: Annotated[int | None, _option("N", "Slurm: nodes; else as many as the YAML's ranks need.", min=1)] = None,
    gpus_per_node: Annotated[str | None, _option("[KIND:]N", "Slurm: GPUs of each node.")] = None,
    cpus_per_node: Annotated[int | None, _option("N", "Slurm: CPUs of each node; else for its ranks.", min=1)] = None,
    time: Annotated[str | None, _option("TIME", "Slurm: time limit, such as 24:00:00.")] = None,
    account: Annotated[str | None, _option("NAME", "Slurm: whose hours.")] = None,
    partition: Annotated[str | None, _option("NAME", "Slurm: which queue.")] = None,
    qos: Annotated[str | None, _option("NAME", "Slurm: quality of service.")] = None,
    sbatch: Annotated[Words, _option("OPTION", "Slurm: another option, such as constraint=ib. Repeatable.")] = None,
    notice: Annotated[int, typer.Option(min=1, help="Slurm: seconds before the limit to commit and requeue.")] = 300,
    logs: Annotated[str, typer.Option(metavar="DIR", help="Slurm: where the job's log goes.")] = "vitpipe-logs",
    apptainer: Annotated[str | None, _option("IMAGE", "Slurm: run in this image, by Apptainer.")] = None,
    enroot: Annotated[str | None, _option("IMAGE", "Slurm: run in this image, by enroot and pyxis.")] = None,
    mount: Annotated[Words, _option("DIR", "Slurm: a folder that the image has to see. Repeatable.")] = None,
    sweep: Annotated[str | None, _option("a.b=x,y", "Slurm: an array, a run for each value.")] = None,
    at_once: Annotated[int | None, _option("N", "Slurm: jobs of the array at the same time.", min=1)] = None,
    as_json: AsJson = False,
) -> int:
    """Run as a Ray job on a cluster, or as a job of Slurm."""
    from vitpipe.pipeline.cli.slurm_wishes import Wishes

    job = Wishes(nodes, gpus_per_node, cpus_per_node, time, account, partition, qos, tuple(sbatch or ()), notice, logs)
    wishes = dataclasses.replace(job, apptainer=apptainer, enroot=enroot, mounts=tuple(mount or ()), at_once=at_once)
    if slurm:
        if address or watch:
            raise UsageError(
                "submit to Slurm", "--address and --watch are for Ray jobs", "see `vitpipe status --watch`"
            )
        _to_slurm(*_swept(spec, overrides or (), sweep), wishes, replace or (), dry_run, as_json)
        return 0
    strange = [*wishes.given(), *(["--sweep"] if sweep else []), *(["--dry-run"] if dry_run else [])]
    if strange:
        raise UsageError("submit a Ray job", f"{', '.join(strange)} belongs to Slurm", "add --slurm")
    if address is None:
        raise UsageError("submit", "nobody said where", "give --address http://head:8265, or --slurm")
    return _to_ray(spec, overrides or (), address, replace or (), watch, as_json)


def _to_slurm(
    name: str,
    specs: Sequence["PipelineSpec"],
    wishes: "Wishes",
    replacing: Sequence[str],
    dry_run: bool,
    as_json: bool,
) -> None:
    from vitpipe.pipeline.cli import slurm_job, submission

    text = slurm_job.script(name, specs, wishes, replacing)
    runs = [spec.uri for spec in specs]
    if dry_run:
        terminal.answer(as_json, {"runs": runs, "script": text}, text.rstrip("\n"))
        return
    sent = slurm_job.send(text, slurm_job.log_path(name, specs, wishes))
    for number, spec in enumerate(specs):
        job = f"{sent.job}_{number}" if len(specs) > 1 else sent.job
        submission.leave_word(spec, job, slurm_job.AT, terminal.complain)
    follow = f"vitpipe status {runs[0]} --watch"
    said = f"job {sent.job} will run {', '.join(runs)}\nits log: {sent.log}\nfollow it: {follow}"
    terminal.answer(as_json, {"job": sent.job, "runs": runs, "log": sent.log}, said)


def _swept(spec: Spec, overrides: Sequence[str], sweep: str | None) -> tuple[str, list["PipelineSpec"]]:
    """Load the YAML once, or once for each value, each a run of its own name. UsageError."""
    from vitpipe.pipeline.spec.load import load

    found = load(spec, overrides)
    if sweep is None:
        return found.name, [found]
    key, _, written = sweep.partition("=")
    values = written.split(",")
    if not key or "" in values or len(set(values)) < len(values):
        raise UsageError(f"submit --sweep {sweep}", "it is no list of different values", "write vars.seed=0,1,2")
    names = [f"{found.name}-{re.sub('[^a-z0-9]+', '-', value.lower()).strip('-')}" for value in values]
    if len(set(names)) < len(names):
        raise UsageError(f"submit --sweep {sweep}", "two of its values make the same name", "sweep over names")
    named = zip(names, values, strict=True)
    return found.name, [load(spec, [*overrides, f"{key}={value}", f"name={json.dumps(name)}"]) for name, value in named]


def _to_ray(
    spec: Spec, overrides: Sequence[str], address: str, replacing: Sequence[str], watch: bool, as_json: bool
) -> int:
    from vitpipe.pipeline.cli import submission
    from vitpipe.pipeline.drive.driver import ignore
    from vitpipe.pipeline.spec.load import load

    found = load(spec, overrides)
    jobs, submitted = submission.submit_spec(found, address, replacing, spec.name, terminal.complain)
    if as_json:
        terminal.print_json({"job": submitted.job, "run": found.uri, "dashboard": submitted.dashboard_url})
    else:
        terminal.tell(f"job {submitted.job} runs {found.uri}\n{submitted.dashboard_url}")
    if not watch:
        return 0
    code = submission.watch(jobs, submitted.job, ignore if as_json else lambda lines: terminal.tell(lines.rstrip("\n")))
    if as_json:
        terminal.print_json({"job": submitted.job, "code": code})
    return code
