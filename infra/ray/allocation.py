"""What a Slurm job has of one node, read from what `srun` sets. Knows no Ray, and starts nothing."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vitpipe.infra.errors import StorageError

LONGEST_TEMPORARY = 38
"""Characters of a folder below which Ray's sockets have a path that a socket may have (107 bytes)."""


@dataclass(frozen=True)
class Allocation:
    """What a Slurm job has of this node, and where it stands among the job's nodes."""

    job: str
    first: bool
    """Whether the driver and Ray's head are here."""
    cpus: int
    gpus: int
    head: str
    """Address of the first node, as Slurm reaches it."""
    port: int
    """Where Ray's head listens."""

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Allocation":
        """Read what `srun` sets. StorageError outside of a job."""
        try:
            return cls(
                job=environment["SLURM_JOB_ID"],
                first=environment["SLURM_PROCID"] == "0",
                cpus=int(environment.get("SLURM_CPUS_ON_NODE") or len(os.sched_getaffinity(0))),
                gpus=_gpus(environment),
                head=environment["SLURM_LAUNCH_NODE_IPADDR"],
                port=int(environment["VITPIPE_RAY_PORT"]),
            )
        except KeyError as error:
            found = f"{error.args[0]} is not set, which `srun` in infra/deploy/slurm.sh does"
            raise StorageError("join the Ray of a Slurm job", found, "use `vitpipe submit SPEC --slurm`") from error


def _gpus(environment: Mapping[str, str]) -> int:
    """Count the GPUs of the job here; those that the machine has besides are somebody else's."""
    if count := environment.get("SLURM_GPUS_ON_NODE"):
        return int(count)
    return len([one for one in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if one.strip()])


def temporary_folder(mine: Allocation) -> Path:
    """Choose Ray's folder on this node: of this job alone, in its scratch unless the path would be too long."""
    name = f"vitpipe-ray-{mine.job}"
    scratch = Path(os.environ.get("TMPDIR", "/tmp"))
    return scratch / name if len(str(scratch / name)) <= LONGEST_TEMPORARY else Path("/tmp") / f"{name}-{os.getuid()}"


def own_address(head: str) -> str:
    """Find this node's address on the network by which it reaches the head. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((head, 9))
        return str(probe.getsockname()[0])
