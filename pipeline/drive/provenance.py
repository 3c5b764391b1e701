"""Which code and which packages computed something: recorded, never part of a fingerprint."""

import functools
import platform
import subprocess
from importlib import metadata
from pathlib import Path

_PACKAGES = (
    "torch", "torchvision", "deepspeed", "ray", "webdataset", "numpy", "scipy", "scikit-learn", "pillow",
    "safetensors", "timm", "boto3", "pydantic", "fonttools", "matplotlib",
)  # fmt: skip


@functools.cache
def code_version() -> str:
    """Name the git commit of this program, with `+dirty` when the tree differs; outside a checkout, the version."""
    root = Path(__file__).resolve().parents[2]
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None:
        return f"vitpipe {_version('vitpipe') or 'unknown'}"
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    return commit + ("+dirty" if changes else "")


@functools.cache
def package_versions() -> dict[str, str]:
    """List the versions of Python and of the packages that decide results, as installed here."""
    found = {name: _version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), **{name: version for name, version in found.items() if version}}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _git(root: Path, *args: str) -> str | None:
    if not (root / ".git").exists():
        return None  # an installed copy inside somebody else's repository
    try:
        done = subprocess.run(["git", "-C", str(root), *args], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None  # no git here, or not our repository: recorded as the version instead
    return done.stdout.strip()
