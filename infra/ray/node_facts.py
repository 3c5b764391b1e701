"""What one machine is, as far as it should be like its neighbours: versions, code, disk, GPUs. Knows no cluster."""

import hashlib
import importlib.metadata
import os
import platform
import shutil
import socket
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from vitpipe.infra import errors
from vitpipe.infra.errors import StorageError
from vitpipe.infra.storage.folders import flock

PACKAGES = ("torch", "torchvision", "deepspeed", "ray", "numpy", "pillow", "webdataset", "boto3", "pydantic")
NVIDIA_S = 20.0
QUERY = "name,driver_version,memory.total,ecc.errors.uncorrected.volatile.total"


@dataclass(frozen=True)
class GpuState:
    """A GPU as its driver describes it."""

    name: str
    driver: str
    memory: str
    ecc_errors: int | None
    """Errors that its memory could not correct since the last reboot; None where the driver does not say."""


@dataclass(frozen=True)
class NodeFacts:
    """What a node says of itself."""

    host: str
    versions: dict[str, str]
    source: str
    """Digest of vitpipe's own code there."""
    scratch: str
    free_bytes: int
    scratch_trouble: str
    cpus: int
    gpus: tuple[GpuState, ...]
    gpu_trouble: str


def node_facts() -> NodeFacts:
    """Look at this machine."""
    scratch = tempfile.gettempdir()
    gpus, gpu_trouble = _gpus()
    return NodeFacts(
        host=socket.gethostname(),
        versions={"python": platform.python_version(), **_versions()},
        source=source_digest(Path(errors.__file__).parents[1]),
        scratch=scratch,
        free_bytes=shutil.disk_usage(scratch).free,
        scratch_trouble=_scratch_trouble(),
        cpus=len(os.sched_getaffinity(0)),
        gpus=gpus,
        gpu_trouble=gpu_trouble,
    )


def source_digest(package: Path) -> str:
    """Digest the Python files of a package, names and contents; its rooms may be links."""
    digest = hashlib.sha256()
    found = [Path(folder, name) for folder, _, names in os.walk(package, followlinks=True) for name in names]
    for path in sorted(path for path in found if path.suffix == ".py"):
        digest.update(f"{path.relative_to(package)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _scratch_trouble() -> str:
    """Say why scratch cannot be used, or nothing."""
    try:
        with tempfile.NamedTemporaryFile() as file:
            flock(file.file)
    except (OSError, StorageError) as error:
        return str(getattr(error, "found", error))
    return ""


def _gpus() -> tuple[tuple[GpuState, ...], str]:
    """Ask the driver; the GPUs, and what is wrong with it."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return (), ""
    query = [program, f"--query-gpu={QUERY}", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=NVIDIA_S, check=False)
    except subprocess.TimeoutExpired:
        return (), f"nvidia-smi gave no answer in {NVIDIA_S:g} s"
    lines = [line.split(", ") for line in done.stdout.strip().splitlines()]
    if done.returncode or not all(len(line) == len(QUERY.split(",")) for line in lines):
        return (), f"nvidia-smi: {(done.stderr or done.stdout).strip()}"
    gpus = [
        GpuState(name, driver, memory, int(ecc) if ecc.isdecimal() else None) for name, driver, memory, ecc in lines
    ]
    return tuple(gpus), ""
