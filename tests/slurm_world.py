"""A real Slurm on this machine: slurmctld, munged and a slurmd for each of two hosts. Fixture: `slurm`.

Each host has its own network, host name and scratch folder; the disk of the controller is theirs too, as on a cluster.
All of it is a program (this file) in namespaces of its own, so that its end is the end of all that it started.
Without the programs, tests that ask for it are skipped; VITPIPE_REQUIRE_SERVICES=1 turns the skip into a failure.
Without the right to make namespaces they are skipped.
"""

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged", "unshare", "nsenter", "ip")
APART = ("unshare", "--net", "--mount", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child")
START_S = 60

CONF = """\
ClusterName=vitpipe
SlurmctldHost=login(10.77.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
MpiDefault=none
ReturnToService=2
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmctldPort=6817
SlurmdPort=6818
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
TaskProlog={folder}/prolog
KillWait=8
MinJobAge=300
GresTypes=gpu
NodeName=node[1-2] NodeAddr=10.77.0.1[1-2] CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=node[1-2] Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:1
"""
HOSTS = 2


@dataclass(frozen=True)
class Slurm:
    """A login on the cluster."""

    folder: Path
    pid: int
    """A process in the login's namespaces."""

    def run(
        self, *command: object, cwd: Path, env: Mapping[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command on the login node; what it printed."""
        inside = ["nsenter", f"--target={self.pid}", "--net", "--mount", "--uts", "--pid", f"--wd={cwd}"]
        environment = {**os.environ, **(env or {}), "SLURM_CONF": f"{self.folder}/slurm.conf"}
        return subprocess.run(
            [*inside, *map(str, command)], env=environment, capture_output=True, text=True, timeout=120, check=False
        )

    def state(self, job: str) -> dict[str, str]:
        """What `scontrol` says of a job: JobState, Restarts, ExitCode and more."""
        said = self.run("scontrol", "--oneliner", "show", "job", job, cwd=self.folder).stdout
        return dict(word.partition("=")[::2] for word in said.split() if "=" in word)

    def wait(self, job: str, *states: str, seconds: float = 60) -> dict[str, str]:
        """Wait until a job has one of these states; what is known of it then."""
        deadline = time.monotonic() + seconds
        while (found := self.state(job)).get("JobState") not in states:
            assert time.monotonic() < deadline, f"job {job} is not {states}: {found}\n{self.words()}"
            time.sleep(0.3)
        return found

    def words(self) -> str:
        """The ends of the programs' logs."""
        return "\n".join(path.read_text(errors="replace")[-600:] for path in sorted(self.folder.glob("*.log")))


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    """Two hosts of two CPUs, `node1` and `node2`, and the login node that tests are on."""
    if missing := [name for name in PROGRAMS if not shutil.which(name)]:
        why = f"no {', '.join(missing)} (Debian: slurmctld slurmd slurm-client munge)"
        pytest.fail(why) if os.environ.get("VITPIPE_REQUIRE_SERVICES") == "1" else pytest.skip(why)
    link = ("ip", "link", "add", "one", "type", "veth", "peer", "name", "other")
    tried = subprocess.run([*APART, *link], capture_output=True, text=True, check=False)
    if tried.returncode:  # no package brings it
        pytest.skip(f"no hosts in namespaces here: {tried.stderr.strip()}")
    folder = Path(tempfile.mkdtemp(prefix="vitpipe-slurm-", dir="/tmp"))
    folder.chmod(0o711)  # munged refuses a socket below a folder that others cannot pass, as pytest's own are
    process = subprocess.Popen(
        [*APART, sys.executable, __file__, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout and process.stdout.readline().strip() == "ready"
        (inside,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        slurm = Slurm(folder, int(inside))
        deadline = time.monotonic() + START_S
        while slurm.run("sinfo", "--noheader", "--format=%D %t", cwd=folder).stdout.split() != ["2", "idle"]:
            assert time.monotonic() < deadline, slurm.words()
            time.sleep(0.3)
        yield slurm
    finally:
        process.kill()  # and with it everything in its namespaces
        process.communicate(timeout=30)
        shutil.rmtree(folder, ignore_errors=True)


def main(folder: Path) -> None:
    """Build the hosts, start the programs, and wait for the end."""
    _write(folder)
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", "br0", "type", "bridge")
    run("ip", "addr", "add", "10.77.0.1/24", "dev", "br0")
    run("ip", "link", "set", "br0", "up")
    run("hostname", "login")
    run("mount", "--bind", f"{folder}/hosts", "/etc/hosts")
    munge = folder / "munge"
    start(folder, "munged", "--foreground", f"--key-file={munge}/key", f"--socket={munge}/socket",
          f"--pid-file={munge}/pid", f"--log-file={munge}/log", f"--seed-file={munge}/seed")  # fmt: skip
    while not (munge / "socket").exists():
        time.sleep(0.1)
    start(folder, "slurmctld", "-D")
    for number in range(1, HOSTS + 1):
        _host(folder, number)
    print("ready", flush=True)
    sys.stdin.read()


def _host(folder: Path, number: int) -> None:
    """A host of its own: what it has comes from its parent, but its network, its name and its scratch folder."""
    scratch = folder / "scratch"
    inside = (
        f"hostname node{number}; mount -t tmpfs -o size=4g tmpfs {scratch}; ip link set lo up; "
        f"until ip link set eth0 up 2>/dev/null; do sleep 0.1; done; ip addr add 10.77.0.1{number}/24 dev eth0; "
        f"exec slurmd -D -N node{number}"
    )
    host = start(folder, "unshare", "--net", "--uts", "--mount", "sh", "-c", inside)
    run("ip", "link", "add", f"host{number}", "type", "veth", "peer", "name", f"peer{number}")
    run("ip", "link", "set", f"host{number}", "master", "br0", "up")
    while os.readlink(f"/proc/{host.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
        time.sleep(0.05)
    run("ip", "link", "set", f"peer{number}", "netns", str(host.pid), "name", "eth0")


def _write(folder: Path) -> None:
    for name in ("munge", "state", "scratch", *(f"spool-node{number}" for number in range(1, HOSTS + 1))):
        (folder / name).mkdir(parents=True, mode=0o711)
    (folder / "slurm.conf").write_text(CONF.format(folder=folder))
    (folder / "gres.conf").write_text("")
    hosts = ["127.0.0.1 localhost", "10.77.0.1 login", *(f"10.77.0.1{one} node{one}" for one in range(1, HOSTS + 1))]
    (folder / "hosts").write_text("\n".join(hosts) + "\n")
    (folder / "munge/key").write_bytes(secrets.token_bytes(128))
    (folder / "munge/key").chmod(0o400)
    prolog = folder / "prolog"
    prolog.write_text(f"#!/bin/sh\necho export SLURM_TMPDIR={folder}/scratch\n")
    prolog.chmod(0o755)


def start(folder: Path, *command: str) -> subprocess.Popen[bytes]:
    """Begin a program that ends with these namespaces."""
    with (folder / f"{Path(command[0]).name}.out").open("ab") as log:
        environment = {**os.environ, "SLURM_CONF": f"{folder}/slurm.conf"}
        return subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment)


def run(*command: str) -> None:
    """Run one command, which has to succeed."""
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
