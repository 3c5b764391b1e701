"""A node of a Slurm job offers what the job was given, starts and ends its own part of Ray, and says why it cannot."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vitpipe.infra.errors import StorageError
from vitpipe.infra.ray import slurm_node
from vitpipe.infra.ray.allocation import Allocation, temporary_folder

PYTHON = sys.executable
STEP = {"SLURM_JOB_ID": "41", "SLURM_PROCID": "0", "SLURM_LAUNCH_NODE_IPADDR": "127.0.0.1", "VITPIPE_RAY_PORT": "20041"}


@pytest.mark.parametrize(
    ("given", "cpus", "gpus"),
    [
        ({"SLURM_CPUS_ON_NODE": "3"}, 3, 0),
        ({}, len(os.sched_getaffinity(0)), 0),
        ({"SLURM_GPUS_ON_NODE": "4", "CUDA_VISIBLE_DEVICES": "0,1"}, len(os.sched_getaffinity(0)), 4),
        ({"SLURM_CPUS_ON_NODE": "3", "CUDA_VISIBLE_DEVICES": "2,5"}, 3, 2),
        ({"SLURM_CPUS_ON_NODE": "3", "CUDA_VISIBLE_DEVICES": ""}, 3, 0),
    ],
)
def test_what_the_job_has_is_offered_and_not_the_machine(given: dict[str, str], cpus: int, gpus: int) -> None:
    mine = Allocation.of({**STEP, **given})
    assert (mine.cpus, mine.gpus, mine.first) == (cpus, gpus, True)
    command = slurm_node.NodeRay(mine, Path("/tmp/x")).command()
    assert f"--num-cpus={cpus}" in command and f"--num-gpus={gpus}" in command and "--port=20041" in command
    other = slurm_node.NodeRay(Allocation.of({**STEP, **given, "SLURM_PROCID": "3"}), Path("/tmp/x")).command()
    assert "--address=127.0.0.1:20041" in other and "--head" not in other


def test_outside_of_a_job_it_says_so() -> None:
    with pytest.raises(StorageError, match="SLURM_JOB_ID is not set"):
        Allocation.of({})


def test_rays_folder_is_short_enough_for_its_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = Allocation.of({**STEP, "SLURM_JOB_ID": "12345678"})
    for scratch in ("/tmp", "/scratch/local", "/scratch/users/someone/with/a/long/name/job.12345678"):
        monkeypatch.setenv("TMPDIR", scratch)
        folder = temporary_folder(mine)
        session = folder / "session_2026-12-31_23-59-59_999999_4194304/sockets/plasma_store.1"
        assert len(str(session)) <= 107 and "12345678" in str(folder)
    assert temporary_folder(mine) != temporary_folder(Allocation.of({**STEP, "SLURM_JOB_ID": "12345679"}))


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in the place of `ray`, whose lines a test writes."""
    program = tmp_path / "bin/ray"
    program.parent.mkdir()
    (tmp_path / "bin/python").symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin/python"))
    monkeypatch.setattr(slurm_node, "LOOK_S", 0.1)
    return program


def write(program: Path, text: str) -> None:
    program.write_text(f"#!/usr/bin/env python3\n{text}\n")
    program.chmod(0o755)


def test_a_ray_that_does_not_start_is_told_with_its_last_words(stand_in: Path, tmp_path: Path) -> None:
    write(stand_in, "import sys\nprint('Permission denied: /dev/shm')\nsys.exit(3)")
    ray = slurm_node.NodeRay(Allocation.of(STEP), tmp_path / "ray")
    with pytest.raises(StorageError, match=r"ended with 3: Permission denied: /dev/shm") as told:
        ray.start()
    assert socket.gethostname() in str(told.value)
    ray.end()


def living(group: int) -> list[int]:
    """Processes of a group that are not merely waiting to be buried."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, of = stat.read_text().rpartition(")")[2].split()[:3]
            found += [int(stat.parent.name)] if int(of) == group and state != "Z" else []
    return found


def test_it_ends_what_it_began_and_nothing_else_and_never_hears_sigterm(stand_in: Path, tmp_path: Path) -> None:
    write(
        stand_in,
        "import subprocess, time\nsubprocess.Popen(['sleep', '600'])\nprint('--block', flush=True)\ntime.sleep(600)",
    )
    neighbour = subprocess.Popen(["sleep", "600"])
    ray = slurm_node.NodeRay(Allocation.of({**STEP, "SLURM_PROCID": "1"}), tmp_path / "ray")
    ray.start()
    assert ray.process
    group = ray.process.pid
    os.killpg(group, signal.SIGTERM)
    time.sleep(0.3)
    assert ray.lives(), "Slurm signals every process of a step"
    ray.end()
    assert not ray.lives() and not (tmp_path / "ray").exists()
    late = time.monotonic() + 60
    while living(group) and time.monotonic() < late:  # who was killed dies when the machine gets to it
        time.sleep(0.05)
    left, goes_on = living(group), neighbour.poll() is None
    neighbour.kill()
    neighbour.wait()
    assert not left and goes_on


def test_the_first_nodes_code_is_left_for_the_script(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stand_in: Path
) -> None:
    write(stand_in, "import sys\nsys.exit('no room')")
    for name, value in {**STEP, "VITPIPE_CODE": str(tmp_path / "code"), "TMPDIR": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert slurm_node.main(["run", "x.yaml"]) == 7
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (tmp_path / "code").read_text() == "7\n"


def test_a_node_that_nobody_waits_for_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(slurm_node, "START_S", 0.2)
    monkeypatch.setattr(slurm_node, "LOOK_S", 0.1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens there
        for name, value in {**STEP, "SLURM_PROCID": "1", "VITPIPE_RAY_PORT": str(taken.getsockname()[1])}.items():
            monkeypatch.setenv(name, value)
        before = signal.getsignal(signal.SIGTERM)
        try:
            assert slurm_node.main([]) == 7
        finally:
            signal.signal(signal.SIGTERM, before)
    assert "nobody listened there" in capsys.readouterr().err


def test_a_head_that_is_not_ready_yet_is_asked_again(stand_in: Path, tmp_path: Path) -> None:
    tried = tmp_path / "tried"
    once = "from pathlib import Path\nimport sys, time\n"
    once += f"tried = Path({str(tried)!r})\nfirst = not tried.exists()\ntried.touch()"
    late = "if first:\n    sys.exit('No node info found for head node')\nprint('--block', flush=True)\ntime.sleep(600)"
    write(stand_in, f"{once}\n{late}")
    with socket.create_server(("127.0.0.1", 0)) as head:
        mine = Allocation.of({**STEP, "SLURM_PROCID": "1", "VITPIPE_RAY_PORT": str(head.getsockname()[1])})
        ray = slurm_node.NodeRay(mine, tmp_path / "ray")
        slurm_node._join(mine, ray)
        assert ray.lives() and tried.exists()
        ray.end()


def test_rays_processes_do_not_outlive_the_one_that_started_them(stand_in: Path, tmp_path: Path) -> None:
    write(stand_in, "import os, time\nprint(os.getpid(), '--block', flush=True)\ntime.sleep(600)")
    code = f"""if True:
        import os, signal, sys
        from pathlib import Path
        from vitpipe.infra.ray import slurm_node
        from vitpipe.infra.ray.allocation import Allocation
        sys.executable = {sys.executable!r}
        mine = Allocation.of({{**{STEP!r}, "SLURM_PROCID": "1"}})
        ray = slurm_node.NodeRay(mine, Path({str(tmp_path / "ray")!r}))
        ray.start()
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([PYTHON, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    pid = int((tmp_path / "ray/start.log").read_text().split()[0])
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.1)
