"""The shipped script under a real slurmctld and two slurmd: what it does with signals, ends and arrays.

Another program stands in place of Python here, so that no Ray has to start; `test_slurm_run.py` has the whole.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from slurm_world import Slurm

from vitpipe.infra import errors
from vitpipe.infra.ray import slurm_node

SCRIPT = Path(errors.__file__).resolve().parent / "deploy" / "slurm.sh"
STAND_IN = """\
#!/bin/bash
echo "$(hostname) $SLURM_PROCID of $SLURM_NTASKS: $*"
echo "cpus $SLURM_CPUS_ON_NODE head $SLURM_LAUNCH_NODE_IPADDR port $VITPIPE_RAY_PORT"
echo "mode $RAY_AUTH_MODE scratch $TMPDIR"
echo "token ${#RAY_AUTH_TOKEN}"
touch "$TMPDIR/of-$(hostname)"
end() { echo "$1" > "$VITPIPE_CODE"; exit "$1"; }
"""
OTHERS = "trap exit TERM; sleep 1"
"""What the stand-in does on all nodes but the first."""
Submit = Callable[..., str]


@pytest.fixture
def submit(slurm: Slurm, tmp_path: Path) -> Submit:
    """Submits the script with a stand-in that ends with these lines; the job's number."""

    def send(
        ending: str,
        *options: str,
        others: str = OTHERS,
        script: Path = SCRIPT,
        command: tuple[str, ...] = ("run", "my.yaml"),
    ) -> str:
        program = tmp_path / "python"
        program.write_text(f'{STAND_IN}[ "$SLURM_PROCID" = 0 ] || {{ {others}; }}\n{ending}')
        program.chmod(0o755)
        environment = {"VITPIPE_PYTHON": str(program), "RAY_AUTH_TOKEN": "", "HOME": str(tmp_path)}
        sent = slurm.run("sbatch", "--parsable", "--nodes=2", "--output=log", *options, script, *command,
                         cwd=tmp_path, env=environment)  # fmt: skip
        assert sent.returncode == 0, sent.stderr
        return sent.stdout.strip()

    return send


def until(said: str, log: Path, times: int = 1) -> str:
    deadline = time.monotonic() + 60
    while not log.exists() or log.read_text().count(said) < times:
        assert time.monotonic() < deadline, log.read_text() if log.exists() else "no log"
        time.sleep(0.2)
    return log.read_text()


def test_every_node_has_its_task_and_what_it_needs(slurm: Slurm, submit: Submit, tmp_path: Path) -> None:
    job = submit("end 0\n")
    assert slurm.wait(job, "COMPLETED")["ExitCode"] == "0:0"
    said = until("token 64", tmp_path / "log", times=2)  # made for this job, and not printed
    port = 20000 + int(job)
    assert "node1 0 of 2: -m vitpipe.infra.ray.slurm_node run my.yaml" in said
    assert "node2 1 of 2: -m vitpipe.infra.ray.slurm_node run my.yaml" in said
    for line in (f"cpus 1 head 10.77.0.11 port {port}\n", f"mode token scratch {slurm.folder}/scratch\n"):
        assert said.count(line) == 2, "both nodes write into one log"
    assert not list((slurm.folder / "scratch").glob("of-*")), "each node's scratch is its own"


@pytest.mark.drill
def test_the_jobs_code_is_the_runs(slurm: Slurm, submit: Submit) -> None:
    assert (
        slurm.wait(submit("end 4\n", others="while sleep 0.1; do :; done"), "FAILED", "COMPLETED")["ExitCode"] == "4:0"
    )


def test_a_notice_before_the_end_puts_the_job_back_and_it_goes_on(slurm: Slurm, submit: Submit, tmp_path: Path) -> None:
    again = f"[ ${{SLURM_RESTART_COUNT:-0}} = 1 ] && end 0\ntrap 'end {slurm_node.RESUMABLE}' TERM\n"
    job = submit(f"{again}echo waiting\nwhile sleep 0.1; do :; done\n")
    until("waiting", tmp_path / "log")
    slurm.run("scancel", "--signal=TERM", job, cwd=tmp_path)
    ended = slurm.wait(job, "COMPLETED", "FAILED", "CANCELLED")
    assert (ended["JobState"], ended["Restarts"]) == ("COMPLETED", "1"), (tmp_path / "log").read_text()
    assert "back into the queue" in (tmp_path / "log").read_text(), "the first start's words are kept"


def test_a_cancelled_job_does_not_come_back(slurm: Slurm, submit: Submit, tmp_path: Path) -> None:
    job = submit(f"trap 'end {slurm_node.RESUMABLE}' TERM\necho waiting\nwhile sleep 0.1; do :; done\n")
    until("waiting", tmp_path / "log")
    slurm.run("scancel", job, cwd=tmp_path)
    slurm.wait(job, "CANCELLED")
    time.sleep(1)
    found = slurm.state(job)
    assert (found["JobState"], found["Restarts"]) == ("CANCELLED", "0")


@pytest.mark.drill
def test_a_stopped_run_does_not_come_back(slurm: Slurm, submit: Submit) -> None:
    ended = slurm.wait(submit("end 6\n", others="while sleep 0.1; do :; done"), "COMPLETED", "FAILED")
    assert (ended["ExitCode"], ended["Restarts"]) == ("6:0", "0")


def test_a_node_that_cannot_take_part_leaves_the_end_to_the_run(slurm: Slurm, submit: Submit, tmp_path: Path) -> None:
    job = submit("sleep 2; end 4\n", others="echo no room; exit 7")
    assert slurm.wait(job, "FAILED", "COMPLETED")["ExitCode"] == "4:0"
    assert "no room" in (tmp_path / "log").read_text()
    job = submit("sleep 2; end 0\n", others="exit 7")
    assert slurm.wait(job, "FAILED", "COMPLETED")["ExitCode"] == "0:0", "a run that can do without it"


def test_a_node_that_does_not_leave_is_not_waited_for(slurm: Slurm, submit: Submit, tmp_path: Path) -> None:
    """Ends within the minute that is waited for it, though one task would never end."""
    with_patience = SCRIPT.read_text().replace('"$over" -eq 30', '"$over" -eq 2')
    assert with_patience != SCRIPT.read_text()
    (tmp_path / "quicker.sh").write_text(with_patience)
    job = submit("end 4\n", others="trap '' TERM; while sleep 0.1; do :; done", script=tmp_path / "quicker.sh")
    assert slurm.wait(job, "FAILED", "COMPLETED", seconds=90)["ExitCode"] == "4:0"


def test_a_number_of_an_array_chooses_the_spec(slurm: Slurm, submit: Submit, tmp_path: Path) -> None:
    job = submit("end 0\n", "--array=3-4", "--nodes=1", "--output=log-%a", command=("run", "s-%a.yaml", "vars.x=%a"))
    for number in (3, 4):
        assert f"run s-{number}.yaml vars.x={number}" in until("token", tmp_path / f"log-{number}")
    slurm.wait(job, "COMPLETED")


def test_what_cannot_start_says_why(slurm: Slurm, submit: Submit, tmp_path: Path) -> None:
    job = submit("", command=())
    assert slurm.wait(job, "FAILED")["ExitCode"] == "2:0"
    assert "nothing to run" in (tmp_path / "log").read_text()
    (tmp_path / "log").unlink()
    job = submit("", "--export=ALL,VITPIPE_PYTHON=/nowhere/python")
    slurm.wait(job, "FAILED")
    assert "whether it found /nowhere/python" in (tmp_path / "log").read_text()


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed (Debian: shellcheck)")
def test_shellcheck_agrees(tmp_path: Path) -> None:
    assert subprocess.run(["shellcheck", SCRIPT], capture_output=True, text=True, check=False).stdout == ""
    (tmp_path / "wrong.sh").write_text("#!/bin/bash\nrm $1/x\n")
    assert subprocess.run(["shellcheck", tmp_path / "wrong.sh"], capture_output=True, check=False).returncode, os.name


@pytest.mark.parametrize(
    ("image", "wanted"),
    [
        ("VITPIPE_APPTAINER", "apptainer exec --bind {here},{scratch},/data/a --pwd {here} --nv /img.sif python -m"),
        (
            "VITPIPE_ENROOT",
            "--container-image=/img.sif --container-workdir={here} "
            "--container-mounts={here}:{here},{scratch}:{scratch},/data/a:/data/a python -m",
        ),
    ],
)
def test_an_image_sees_the_folders_that_it_needs(tmp_path: Path, image: str, wanted: str) -> None:
    """By a `srun` that prints what it was asked for: there is neither Apptainer nor pyxis here."""
    (tmp_path / "srun").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "srun").chmod(0o755)
    scratch = tmp_path / "scratch"
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path), "TMPDIR": str(scratch),
        "SLURM_JOB_ID": "7", "SLURM_GPUS_ON_NODE": "8", "VITPIPE_MOUNTS": "/data/a", image: "/img.sif",
    }  # fmt: skip
    done = subprocess.run(
        ["bash", SCRIPT, "run", "x.yaml"], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0 and wanted.format(here=tmp_path, scratch=scratch) in done.stdout, done.stdout
