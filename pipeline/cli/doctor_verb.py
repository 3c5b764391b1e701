"""The verb that looks whether this machine, or every node of a cluster, has what a run needs."""

import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitpipe.infra.errors import UsageError
from vitpipe.pipeline.cli.plan_verbs import AsJson
from vitpipe.pipeline.cli.terminal import folded, print_json, say, tell

if TYPE_CHECKING:
    from vitpipe.pipeline.cli.doctor import Check

doctors = typer.Typer()
GPU_CHECK = "vitpipe.stages.gpu_check"
"""Imports torch, which this program does not."""


@doctors.command()
def doctor(
    store: Annotated[str, typer.Option(help="Where runs are to be kept.")] = "file://./runs",
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Look at every node of the cluster, and at every pair of them.")
    ] = False,
    address: Annotated[
        str | None,
        typer.Option(metavar="URL", help="With --cluster: its jobs API; else that of RAY_ADDRESS.", show_default=False),
    ] = None,
    gpu: Annotated[
        bool, typer.Option("--gpu", help="Show and measure what training does on this machine's GPU; see --minutes.")
    ] = False,
    minutes: Annotated[float | None, typer.Option(help="With --gpu: the whole time; 10.", show_default=False)] = None,
    out: Annotated[
        Path | None, typer.Option(help="With --gpu: the report's folder; gpu-report.", show_default=False)
    ] = None,
    sections: Annotated[
        str | None, typer.Option(metavar="A,B", help="With --gpu: these sections alone.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Look at Ray, token, store, clock, disk, compiler and GPUs: each ok, or what to do."""
    from vitpipe.pipeline.cli.doctor import checks

    told = {"--minutes": minutes, "--out": out, "--sections": sections}
    given = {name: str(value) for name, value in told.items() if value is not None}
    if gpu:
        if cluster or address:
            raise UsageError(
                "check the GPU", "it is this machine's, not a cluster's", "leave --cluster and --address out"
            )
        return _of_gpu(given, as_json)
    if given:
        raise UsageError("look at this machine", f"{' and '.join(given)} belong to --gpu", "add --gpu")
    if address and not cluster:
        raise UsageError("look at this machine", "--address is that of a cluster", "add --cluster")
    if address:
        return _as_job(_absolute(store), address, as_json)
    return _told(_of_cluster(_absolute(store)) if cluster else checks(store), as_json)


def _told(checks: Iterable["Check"], as_json: bool) -> int:
    """Print each check as it is done; the exit code. StorageError when one is not ok."""
    from vitpipe.pipeline.cli.doctor import failure

    found = []
    for check in checks:
        found.append(check)
        if not as_json:
            verdict = "ok " if check.ok else "BAD"
            say(folded(f"{verdict} {check.name}: {check.found}" + (f"; {check.do}" if check.do else "")))
    error = failure(found)
    if as_json:
        wrong = {"error": error.to_json()} if error else {}
        print_json({"checks": [asdict(check) for check in found], **wrong})
    elif error:
        raise error
    return error.code if error else 0


def _absolute(store: str) -> str:
    from vitpipe.pipeline.spec.places import absolute_uri

    try:
        return absolute_uri(store, Path.cwd())
    except ValueError as error:
        raise UsageError(f"look at the store {store}", str(error), "give file:// or s3://") from None


def _of_gpu(given: dict[str, str], as_json: bool) -> int:
    """Run the check in a process of its own, whose terminal is ours; its exit code."""
    from vitpipe.pipeline.cli.doctor import gpu_names
    from vitpipe.pipeline.plan.given_machines import gpu_kinds
    from vitpipe.stages.gpu_check.report import kind_of

    known = [kind for name in gpu_names() if (kind := gpu_kinds().get(kind_of(name)))]
    peak = ["--peak-flops", f"{known[0].peak_flops:.0f}"] if known else []
    words = [word for pair in given.items() for word in pair] + peak + (["--json"] if as_json else [])
    process = subprocess.Popen([sys.executable, "-m", GPU_CHECK, *words])
    try:
        return abs(process.wait())
    finally:  # where this program is asked to end, the check first ends its section and removes its files
        if process.poll() is None:
            process.terminate()
            process.wait()


def _of_cluster(store: str) -> Iterable["Check"]:
    """Join the cluster of RAY_ADDRESS, or embed one, and judge what its nodes say."""
    from vitpipe.infra.ray.connect import survey_cluster
    from vitpipe.pipeline.cli.cluster_checks import cluster_checks

    expected = int(os.environ.get("VITPIPE_NODES") or 1)
    return cluster_checks(survey_cluster(store, expected, os.environ.get("RAY_ADDRESS")), expected)


def _as_job(store: str, address: str, as_json: bool) -> int:
    """Let the cluster look at itself, as a job of its own: credentials are the nodes'."""
    from vitpipe.infra.ray.jobs import Jobs
    from vitpipe.pipeline.cli import submission

    jobs = Jobs(address)
    words = ["doctor", "--cluster", "--store", store, *(["--json"] if as_json else [])]
    job = jobs.submit(words, {}, "doctor", {"vitpipe_store": store})
    return submission.watch(jobs, job.job, lambda lines: tell(lines.rstrip("\n")))
