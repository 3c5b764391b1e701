"""`submit --slurm` writes a script that says what was asked, and refuses what Slurm, or the run, could not do."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Vitpipe, typed
from small_spec import GOOD

from vitpipe.pipeline.cli.submission import fate
from vitpipe.pipeline.store.submitted import Submission

SPEC = GOOD.replace("batch_images: 30", "batch_images: 4608")  # of which 32 ranks have parts
GANG = "nodes.net.resources={workers: 32, gpus_per_worker: 1, cpus_per_worker: 12}"


@pytest.fixture
def submit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Vitpipe:
    """Runs `vitpipe submit my.yaml --slurm` in an empty folder; its exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    (tmp_path / "my.yaml").write_text(SPEC)
    return typed(capsys, "submit", "my.yaml", "--slurm")


def options(script: str) -> dict[str, str]:
    found = [line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH")]
    return dict(option.partition("=")[::2] for option in found)


def test_the_script_says_what_was_asked(submit: Vitpipe, tmp_path: Path) -> None:
    words = "--gpus-per-node a100:8 --time 24:00:00 --account vit --partition gpu --qos high --sbatch constraint=ib"
    code, script, _ = submit("--dry-run", *words.split(), "--sbatch", "exclusive", GANG)
    assert code == 0 and subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    assert options(script) == {
        "job-name": "vitpipe-run", "nodes": "4", "ntasks-per-node": "1", "cpus-per-task": "96",
        "gpus-per-node": "a100:8", "time": "24:00:00", "account": "vit", "partition": "gpu", "qos": "high",
        "requeue": "", "signal": "TERM@300", "open-mode": "append",
        "output": f"{tmp_path}/vitpipe-logs/vitpipe-run-%j.log", "constraint": "ib", "exclusive": "",
    }  # fmt: skip
    assert f"VITPIPE_PYTHON={sys.executable}\n" in script and 'set -- run "$specs/%a.yaml"\n' in script
    assert not (tmp_path / "vitpipe-logs").exists(), "nothing is done"


def test_the_yaml_is_inside_and_reads_back_as_it_was(submit: Vitpipe, tmp_path: Path) -> None:
    _, out, _ = submit("--dry-run", "--json", "nodes.net.config.seed=5", "--replace", "net")
    found = json.loads(out)
    program = tmp_path / "python"
    program.write_text('#!/bin/sh\nshift 2\necho "$@"\ncat "$2"\n')
    program.chmod(0o755)
    (tmp_path / "srun").write_text('#!/bin/sh\nwhile [ "${1#--}" != "$1" ]; do shift; done\nexec "$@"\n')
    (tmp_path / "srun").chmod(0o755)
    text = found["script"].replace(sys.executable, str(program))
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "5", "HOME": str(tmp_path)}
    ran = subprocess.run(
        ["bash"], input=text, capture_output=True, text=True, cwd=tmp_path, check=True,
        env={**environment, "TMPDIR": str(tmp_path / "s")},
    )  # fmt: skip
    command, _, yaml = ran.stdout.partition("\n")
    assert command.startswith("run ") and command.endswith("0.yaml --replace net")
    from vitpipe.pipeline.spec.load import load

    again = load(yaml)
    assert again.uri == found["runs"][0] == f"file://{tmp_path}/runs/run"
    assert again.graph.nodes["net"].config.seed == 5  # type: ignore[attr-defined]
    assert not list((tmp_path / "s").iterdir()), "scratch is left as it was"


@pytest.mark.parametrize(
    ("words", "nodes", "cpus"),
    [
        ((), 1, 1),
        (("nodes.net.resources.workers=8",), 1, 8),
        (("nodes.net.resources.workers=8", "--cpus-per-node", "4"), 2, 4),
        (("nodes.net.resources.workers=8", "--nodes", "4"), 4, 2),
        (("nodes.net.resources.workers=8", "--gpus-per-node", "8"), 1, 8),
        (("nodes.net.resources.workers=1", "--gpus-per-node", "1"), 1, 1),
        (("nodes.net.resources={workers: [2, 9], cpus_per_worker: 3}", "--gpus-per-node", "4"), 3, 9),
        (("nodes.net.resources={workers: [2, 9]}", "--gpus-per-node", "4", "--nodes", "1"), 1, 9),
    ],
)
def test_the_job_is_as_large_as_the_yaml_asks(submit: Vitpipe, words: tuple[str, ...], nodes: int, cpus: int) -> None:
    _, script, _ = submit("--dry-run", *words)
    assert (options(script)["nodes"], options(script)["cpus-per-task"]) == (str(nodes), str(cpus))


def test_a_sweep_is_an_array_of_runs(submit: Vitpipe, tmp_path: Path) -> None:
    words = ("--dry-run", "--json", "--gpus-per-node", "1", "--sweep", "nodes.net.config.seed=3,4,5", "--at-once", "2")
    found = json.loads(submit(*words)[1])
    assert found["runs"] == [f"file://{tmp_path}/runs/run-{seed}" for seed in (3, 4, 5)]
    assert options(found["script"])["array"] == "0-2%2"
    assert options(found["script"])["output"].endswith("vitpipe-run-%A_%a.log")
    assert [found["script"].count(f"seed: {seed}\n") for seed in (3, 4, 5)] == [1, 1, 1]


@pytest.mark.parametrize(("runtime", "other"), [("apptainer", "ENROOT"), ("enroot", "APPTAINER")])
def test_an_image_is_named_and_sees_the_store(submit: Vitpipe, tmp_path: Path, runtime: str, other: str) -> None:
    _, script, _ = submit("--dry-run", f"--{runtime}", "/images/vit pipe.sif", "--mount", "/data/in21k")
    said = script.partition("set -- run")[0]
    assert f"VITPIPE_{runtime.upper()}='/images/vit pipe.sif'\n" in said and f"VITPIPE_{other}=" not in said
    assert f"VITPIPE_MOUNTS={tmp_path}/runs,/data/in21k\n" in said and "VITPIPE_PYTHON=" not in said


WRONG = {
    "time": (("--time", "tomorrow"), "24:00:00"),
    "time that the notice fills": (("--time", "5"), "notice"),
    "a blank": (("--partition", "gpu --wrap=x"), "blanks"),
    "a line": (("--account", "a\n#SBATCH --wrap=x"), "blanks"),
    "an option that the script sets": (("--sbatch", "array=0-9"), "itself"),
    "an option with a word of its own": (("--sbatch", "partition=gpu"), "--partition"),
    "dashes": (("--sbatch", "--mem=4G"), "without dashes"),
    "GPUs": (("--gpus-per-node", "many"), "a100:8"),
    "two images": (("--apptainer", "a.sif", "--enroot", "a"), "one of them"),
    "no GPU for a rank": (("nodes.net.resources.gpus_per_worker=1",), "--gpus-per-node"),
    "too few GPUs": ((GANG, "--gpus-per-node", "8", "--nodes", "2"), "hold 16 ranks"),
    "too few CPUs": (("nodes.net.resources.workers=8", "--nodes", "2", "--cpus-per-node", "3"), "hold 6 ranks"),
    "too few CPUs beside GPUs": ((GANG, "--gpus-per-node", "8", "--cpus-per-node", "16"), "hold 4 ranks"),
    "a sweep of nothing": (("--sweep", "vars.x"), "vars.seed=0,1,2"),
    "a sweep of equals": (("--sweep", "nodes.net.config.seed=1,1"), "different"),
    "Ray's options": (("--address", "http://127.0.0.1:1"), "Ray jobs"),
}


@pytest.mark.parametrize(("words", "said"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_is_refused(submit: Vitpipe, words: tuple[str, ...], said: str) -> None:
    code, out, err = submit("--dry-run", *words)
    assert code == 2 and out == "" and said in err


def test_options_of_slurm_need_slurm(submit: Vitpipe, capsys: pytest.CaptureFixture[str]) -> None:
    ray = typed(capsys, "submit", "my.yaml")
    code, _, err = ray("--address", "http://127.0.0.1:1", "--partition", "gpu", "--sbatch", "mem=1G")
    assert code == 2 and "--partition, --sbatch" in err and "--slurm" in err
    code, _, err = ray()
    assert code == 2 and "--address" in err


def test_sbatch_takes_it_or_says_why_not(submit: Vitpipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    code, _, err = submit()
    assert code == 7 and "no `sbatch`" in err and "--dry-run" in err
    program = tmp_path / "sbatch"
    program.write_text("#!/bin/sh\nread -r first\necho 'sbatch: error: invalid partition specified: gpu' >&2\nexit 1\n")
    program.chmod(0o755)
    code, _, err = submit("--partition", "gpu")
    assert code == 7 and "invalid partition specified" in err
    program.write_text(f"#!/bin/bash\n/bin/cat > {tmp_path}/script\necho '17;cluster'\n")
    code, out, _ = submit("--json")
    log = tmp_path / "vitpipe-logs/vitpipe-run-17.log"
    assert code == 0 and json.loads(out) == {"job": "17", "runs": [f"file://{tmp_path}/runs/run"], "log": str(log)}
    left = json.loads((tmp_path / "runs/run/submitted.json").read_text())
    assert (left["job"], left["address"], left["nodes"]) == ("17", "slurm", ["data", "net"])
    assert log.parent.is_dir() and (tmp_path / "script").read_text().startswith("#!/bin/bash\n")


@pytest.mark.parametrize(
    ("said", "words", "over"),
    [
        ("JobId=17 JobState=PENDING Reason=Priority Dependency=(null)", "PENDING (Priority)", False),
        ("JobId=17 JobState=RUNNING Reason=None", "RUNNING", False),
        ("JobId=17 JobState=FAILED Reason=NonZeroExitCode ExitCode=7:0", "FAILED with 7:0 before it began", True),
        ("JobId=17 JobState=CANCELLED ExitCode=0:15", "CANCELLED", True),
        ("", "knows that job no more", True),
        (None, "not known", False),
    ],
)
def test_a_job_that_has_not_begun_is_asked_of_slurm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str | None, words: str, over: bool
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    if said is not None:
        (tmp_path / "scontrol").write_text(f"#!/bin/sh\necho '{said}'\n")
        (tmp_path / "scontrol").chmod(0o755)
    told = fate(Submission("17", "slurm", "me@login", 0.0, 0, ("data",)))
    assert words in told.words and told.over is over
