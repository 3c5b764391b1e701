"""What a run needs of this machine and its store, each tried or looked up, and what to do where it is missing.

Imports neither Ray nor torch: it has to answer where they are broken.
"""

import importlib.metadata
import os
import platform
import secrets
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from packaging.requirements import Requirement

from vitpipe.infra.errors import StorageError, VitpipeError
from vitpipe.infra.ray import auth as ray_auth
from vitpipe.infra.ray.connect import RAY_SETTINGS
from vitpipe.infra.storage import mounts
from vitpipe.infra.storage.conditions import REMEDY, round_trip
from vitpipe.infra.storage.folders import flock
from vitpipe.infra.storage.local import LocalStore
from vitpipe.infra.storage.opening import open_store
from vitpipe.infra.storage.store import Store
from vitpipe.stages.images.native import compilation

MIN_RAY = (2, 60)
MIN_FREE_BYTES = 2 << 30
EXTRAS = ("", "benchmarks", "parity", "wandb", "mlflow", "trackio")  # "" is every installation
"""Whose packages this program calls; those of `dev`, such as pytest, may be of any version here."""
MAX_SKEW_S = 10.0
"""Machines whose clocks differ more make `status` and the times of events misleading; S3 refuses at 15 minutes."""


@dataclass(frozen=True)
class Check:
    """One thing looked at."""

    name: str
    ok: bool
    found: str
    do: str = ""
    """What to do; empty when it is ok."""


def checks(store_uri: str = "file://./runs") -> Iterator[Check]:
    """Yield every check as it is done; `store_uri` is where runs are to be kept. One that is not ok means exit 7."""
    for look in (_python, _packages, _ray, _token, _address, _gpus, _compiler, _reader, _disk):
        yield settled(look())
    for check in _store_checks(store_uri):
        yield settled(check)


def failure(found: list[Check]) -> StorageError | None:
    """Make the error that names what is not ok; None when all is."""
    bad = [check for check in found if not check.ok]
    if not bad:
        return None
    return StorageError("pass every check", f"not ok: {', '.join(check.name for check in bad)}", bad[0].do)


def settled(check: Check) -> Check:
    """Leave out what to do where there is nothing to do."""
    return replace(check, do="") if check.ok else check


def _python() -> Check:
    return Check("python", sys.version_info >= (3, 11), platform.python_version(), "use Python 3.11 or newer")


def _packages() -> Check:
    """What is installed against what this program asks for; other versions are untried, and may differ inside."""
    try:
        outside = dict(_outside(importlib.metadata.requires("vitpipe") or []))
    except importlib.metadata.PackageNotFoundError:
        return Check("packages", True, "not compared: vitpipe runs from its folder and is not installed")
    found = "; ".join(outside.values()) or "each as asked for"
    wanted = " ".join(f"'{requirement}'" for requirement in outside)
    return Check("packages", not outside, found, f"pip install {wanted}, or `make install`, which takes what was tried")


def _outside(asked: list[str]) -> Iterator[tuple[str, str]]:
    """Each requirement that is not met, and how; one of an extra counts only where it is installed."""
    for requirement in map(Requirement, asked):
        if not _asked_by(requirement, *EXTRAS):
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            if _asked_by(requirement, ""):
                yield _plain(requirement), f"{requirement.name} is not installed"
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            yield _plain(requirement), f"{requirement.name} {version} is outside of {requirement.specifier}"


def _asked_by(requirement: Requirement, *extras: str) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in extras)


def _plain(requirement: Requirement) -> str:
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    return f"{requirement.name}{extras}{requirement.specifier}"


def _ray() -> Check:
    try:
        version = importlib.metadata.version("ray")
    except importlib.metadata.PackageNotFoundError:
        return Check("ray", False, "not installed", "run `make install`, and use .venv/bin/vitpipe")
    recent = tuple(int(part) for part in version.split(".")[:2]) >= MIN_RAY
    mode = os.environ.get("RAY_AUTH_MODE", RAY_SETTINGS["RAY_AUTH_MODE"])
    if not recent:
        return Check("ray", False, f"version {version}", "install ray >= 2.60: older ones run anyone's jobs")
    return Check("ray", mode == "token", f"version {version}, RAY_AUTH_MODE={mode}", "unset RAY_AUTH_MODE")


def _token() -> Check:
    if os.environ.get("RAY_AUTH_TOKEN"):
        return Check("token", True, "in RAY_AUTH_TOKEN")
    path = ray_auth.token_path()
    if not path.exists():
        if os.environ.get("RAY_ADDRESS"):
            return Check("token", False, f"no {path}", "copy the cluster's token there, readable by you alone")
        return Check("token", True, "none yet: the first run makes one")
    private = path.stat().st_mode & 0o077 == 0
    return Check("token", private, f"{path}{'' if private else ' is readable by others'}", f"chmod 600 {path}")


def _address() -> Check:
    address = os.environ.get("RAY_ADDRESS", "")
    if address in ("", "local"):
        return Check("cluster", True, "Ray runs embedded, on this machine (no RAY_ADDRESS)")
    host, _, port = address.removeprefix("ray://").removeprefix("http://").rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=5):
            return Check("cluster", True, f"{address} answers")
    except (OSError, ValueError) as error:
        return Check("cluster", False, f"RAY_ADDRESS {address}: {error}", "correct RAY_ADDRESS, or start the cluster")


def _compiler() -> Check:
    """Triton compiles a launcher for each kernel of torch.compile, which runs on GPUs alone."""
    found, headers = shutil.which("cc"), Path(sysconfig.get_path("include")) / "Python.h"
    lacking = "no C compiler `cc`" if found is None else "" if headers.exists() else f"no {headers}"
    ok = not lacking or shutil.which("nvidia-smi") is None
    do = "for `compile: true`; Debian: apt-get install gcc libc6-dev python3-dev"
    return Check("compiler", ok, lacking or str(found), do)


def _reader() -> Check:
    """Look for the C extension. A missing one is no fault: images are then decoded whole, with the same pixels."""
    found = compilation.compiled_extension()
    return Check("reader", True, str(found) if found else f"no C extension: images are decoded whole. {compilation.DO}")


def gpu_names() -> list[str]:
    """Names of this machine's GPUs as the driver has them; none without it, or where it does not answer."""
    found = _gpus()
    return [line.partition(",")[0].strip() for line in found.found.split("; ")] if found.ok and _smi() else []


def _smi() -> str | None:
    return shutil.which("nvidia-smi")


def _gpus() -> Check:
    program = _smi()
    if program is None:
        return Check("GPUs", True, "none (no nvidia-smi): training runs on CPUs")
    query = [program, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    except subprocess.TimeoutExpired:
        return Check("GPUs", False, "nvidia-smi gave no answer in 20 s", "look at the driver: `dmesg`, then reboot")
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return Check("GPUs", False, f"nvidia-smi: {(done.stderr or done.stdout).strip()}", "repair the NVIDIA driver")
    return Check("GPUs", True, "; ".join(lines))


def _disk() -> Check:
    """Scratch is where shards are cached and checkpoints are written before they are uploaded."""
    folder = tempfile.gettempdir()
    try:
        with tempfile.NamedTemporaryFile() as file:
            flock(file.file)
    except (OSError, StorageError) as error:
        return Check("disk", False, f"{folder}: {getattr(error, 'found', error)}", "set TMPDIR to a local disk")
    free = shutil.disk_usage(folder).free
    do = f"free some space, or set TMPDIR to a larger disk (at least {MIN_FREE_BYTES >> 30} GiB)"
    return Check("disk", free >= MIN_FREE_BYTES, f"{free / 2**30:.1f} GiB free in {folder}", do)


def _store_checks(uri: str) -> Iterator[Check]:
    try:
        store = open_store(uri)
        if isinstance(store, LocalStore) and (mount := mounts.mount_of(store.root)):
            warnings = [f"warning: {remark}" for remark in mounts.remarks(mount)]
            yield Check("file system", True, "; ".join([f"{mount.kind} at {mount.point}", *warnings]))
        yield _round_trip(store)
        ahead = store.clock_ahead_s()
    except VitpipeError as error:
        yield Check(f"store {uri}", False, error.found or str(error), error.do or "check the store's URI")
        return
    found = f"the store's is {ahead:+.1f} s ahead of ours"
    yield Check("clock", abs(ahead) <= MAX_SKEW_S, found, "set this machine's clock (NTP)")


def _round_trip(store: Store) -> Check:
    """Write, read, commit and delete as a run does. The name is one that the shipped S3 policy lets a run delete."""
    name = f"doctor-{secrets.token_hex(4)}/node/a0/step-0/probe"
    wrong = list(round_trip(store, name))
    if wrong:
        return Check(f"store {store.uri}", False, f"it breaks a promise: {'; '.join(wrong)}", REMEDY)
    return Check(f"store {store.uri}", True, "wrote, read, swapped, listed and deleted a probe")
