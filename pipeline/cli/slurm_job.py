"""A run as a Slurm job: the shipped script with the job's options above it and the YAML inside.

The YAML is in the script, which Slurm keeps: a job that goes back into the queue is the same run, whatever was edited
since. Of Slurm it knows `sbatch` and its options; what the job does on its nodes is `infra/deploy/slurm.sh`.
"""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vitpipe.infra import errors
from vitpipe.infra.errors import StorageError, UsageError
from vitpipe.pipeline.cli.slurm_size import JobSize
from vitpipe.pipeline.cli.slurm_wishes import Wishes
from vitpipe.pipeline.spec.load import PipelineSpec
from vitpipe.pipeline.spec.places import is_local

SCRIPT = Path(errors.__file__).parent / "deploy" / "slurm.sh"
AT = "slurm"
"""Where a run was submitted, as the word says that is left in its store."""
WAITING = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "REQUEUED", "REQUEUE_HOLD", "SUSPENDED")
"""States of a job that may begin yet."""
ASK_S = 10.0
JOB, RUN = "# ---- the job\n", "# ---- what to run\n"
"""Lines of the shipped script: what is above the first are options, what is ours is written above the second."""


@dataclass(frozen=True)
class QueuedJob:
    """A job that Slurm has taken."""

    job: str
    log: str
    """Where its log will be."""


def script(name: str, specs: Sequence[PipelineSpec], wishes: Wishes, replacing: Sequence[str] = ()) -> str:
    """Write the script of the job `name`; several specs are an array. UsageError when it is too small for one."""
    about, _, rest = SCRIPT.read_text(encoding="utf-8").partition(JOB)
    body, _, end = rest.partition(RUN)
    shebang = about.splitlines()[0]
    options = [f"#SBATCH --{option}" for option in _options(name, specs, wishes)]
    ours = "\n".join([*_settings(specs, wishes), *_specs(specs, replacing)])
    runs = "\n".join(f"# {spec.uri}" for spec in specs)
    return f"{shebang}\n# Written by vitpipe for\n{runs}\n" + "\n".join(options) + f"\n{body}{ours}\n{end}"


def send(text: str, log: str) -> QueuedJob:
    """Give a script to `sbatch`; the job. StorageError when there is none, or when it refuses."""
    asked = "submit the run to Slurm"
    if folder := os.path.dirname(log):
        os.makedirs(folder, exist_ok=True)  # a job whose log has no folder ends without a word
    try:
        done = subprocess.run(["sbatch", "--parsable"], input=text, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        do = "type it on a login node, or add --dry-run and take the script there"
        raise StorageError(asked, "there is no `sbatch` on this machine", do) from None
    if done.returncode:
        words = " ".join(done.stderr.split()) or f"sbatch ended with {done.returncode}"
        raise StorageError(asked, words, "correct the options, or see `sinfo` for what this cluster has")
    job = done.stdout.strip().partition(";")[0]
    return QueuedJob(job, log.replace("%A", job).replace("%j", job))


def outlook(job: str) -> tuple[str, bool]:
    """Ask Slurm how a job stands for which no driver has begun: in words, and whether it will not begin any more."""
    try:
        done = subprocess.run(
            ["scontrol", "--oneliner", "show", "job", job], capture_output=True, text=True, check=False, timeout=ASK_S
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return "what became of it is not known (no answer of `scontrol` here)", False
    fields = dict(word.partition("=")[::2] for word in done.stdout.split() if "=" in word)
    state, why = fields.get("JobState", ""), fields.get("Reason", "")
    if not state:
        return "Slurm knows that job no more; its log says why, if it began", True
    if state in WAITING:
        return f"Slurm has it as {state}" + (f" ({why})" if why not in ("", "None") else ""), False
    return (
        f"its job ended as {state} with {fields.get('ExitCode', '?')} before it began: see its log, submit it again",
        True,
    )


def log_path(name: str, specs: Sequence[PipelineSpec], wishes: Wishes) -> str:
    """Name the log of the job with Slurm's own marks for its numbers."""
    number = "%A_%a" if len(specs) > 1 else "%j"
    return str(Path(os.path.abspath(wishes.logs)) / f"vitpipe-{name}-{number}.log")


def _options(name: str, specs: Sequence[PipelineSpec], wishes: Wishes) -> Iterator[str]:
    size = JobSize.of([spec.graph for spec in specs], wishes)
    yield f"job-name=vitpipe-{name}"
    yield f"nodes={size.nodes}"
    yield "ntasks-per-node=1"
    yield f"cpus-per-task={size.cpus}"
    if wishes.gpus_per_node:
        yield f"gpus-per-node={wishes.gpus_per_node}"
    for option in ("time", "account", "partition", "qos"):
        if value := getattr(wishes, option):
            yield f"{option}={value}"
    if len(specs) > 1:
        yield f"array=0-{len(specs) - 1}" + (f"%{wishes.at_once}" if wishes.at_once else "")
    yield from ("requeue", f"signal=TERM@{wishes.notice_s}", "open-mode=append")
    yield f"output={_quoted(log_path(name, specs, wishes))}"
    yield from wishes.more


def _settings(specs: Sequence[PipelineSpec], wishes: Wishes) -> Iterator[str]:
    """What the shipped script reads from its environment, as this command was started."""
    if not wishes.image:
        if code := os.environ.get("PYTHONPATH"):
            yield f"export PYTHONPATH={shlex.quote(code)}"
        yield f"VITPIPE_PYTHON={shlex.quote(sys.executable)}"
        return
    yield f"VITPIPE_{wishes.runtime.upper()}={shlex.quote(wishes.image)}"
    stores = [spec.store.removeprefix("file://") for spec in specs if is_local(spec.store)]
    if mounts := [*dict.fromkeys((*stores, *map(os.path.abspath, wishes.mounts)))]:
        yield f"VITPIPE_MOUNTS={shlex.quote(','.join(mounts))}"


def _specs(specs: Sequence[PipelineSpec], replacing: Sequence[str]) -> Iterator[str]:
    yield 'specs=$(mktemp -d "$scratch/vitpipe-spec-XXXXXX")'
    yield "trap 'rm -rf \"$specs\"' EXIT"
    for number, spec in enumerate(specs):
        end = "END_OF_SPEC"
        while end in spec.text.splitlines():
            end += "_"
        yield f"cat > \"$specs/{number}.yaml\" << '{end}'\n{spec.text.rstrip()}\n{end}"
    replace = "".join(f" --replace {shlex.quote(node)}" for node in replacing)
    yield f'set -- run "$specs/%a.yaml"{replace}'


def _quoted(value: str) -> str:
    if '"' in value or "\\" in value:
        raise UsageError(f"write the job's log to {value}", "sbatch takes no quotes and backslashes", "choose --logs")
    return f'"{value}"' if " " in value else value
