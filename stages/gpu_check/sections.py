"""Which sections the GPU check has, in order of worth, what each needs, and its share of the time. No torch."""

from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from vitpipe.infra.errors import UsageError
from vitpipe.stages.gpu_check.findings import Findings, Way

TRAINING = ("torch", "deepspeed")
"""What a section cannot begin without. What else it lacks it says itself, by ending with LACKING."""
LACKING = 3
"""Exit code of a section that a package is missing for."""
PACKAGES = {"PIL": "pillow"}
"""Names of packages that are imported by another one."""
NEEDED = (*TRAINING, "torchvision", "pydantic", "numpy", "PIL", "safetensors", "scipy", "tensorboard")
LOOKED_AT = (*NEEDED, "timm", "triton", "ray", "boto3")


@dataclass(frozen=True)
class Section:
    """One part of the check: a module of this room with a `run(way, findings)`."""

    name: str
    title: str
    share: float
    """Of the whole time; what earlier sections leave goes to the later ones."""
    proves: bool = False
    """Whether the check fails where it does."""
    needs: tuple[str, ...] = TRAINING


SECTIONS = (
    Section("machine", "What is here", 0.03, needs=("torch", "numpy")),
    Section("losses", "Losses beside the CPU's in plain torch", 0.09, proves=True),
    Section("resume", "Killed and resumed, and on another number of ranks", 0.20, proves=True),
    Section("graphs", "Graphs, breaks and recompiles under torch.compile", 0.10, proves=True),
    Section("speed", "Step time, utilisation and memory beside the plan's", 0.32),
    Section("launches", "Reads and launches of a step", 0.06),
    Section("feeding", "Reader threads, and the share of the step that waits", 0.08),
    Section("stall", "What a checkpoint costs", 0.06),
    Section("sharing", "One device shared by fine-tuning trials", 0.06),
)
NAMES = tuple(section.name for section in SECTIONS)


def chosen(asked: str | None) -> tuple[str, ...]:
    """Read `a,b`; all sections where nothing is given. UsageError for a name that there is none of."""
    wanted = NAMES if asked is None else tuple(name.strip() for name in asked.split(",") if name.strip())
    unknown = [name for name in wanted if name not in NAMES]
    if unknown or not wanted:
        found = f"no section {', '.join(unknown)}" if unknown else "no section is named"
        raise UsageError(
            f"check the GPU by --sections {asked or repr(asked)}", found, f"choose among {','.join(NAMES)}"
        )
    return wanted


def missing(needs: tuple[str, ...]) -> list[str]:
    """List the packages that a section needs and this Python does not have."""
    return [PACKAGES.get(name, name) for name in needs if not _there(name)]


def _there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def versions() -> dict[str, str]:
    """Look up which version of each package is here; `absent` for none."""
    return {PACKAGES.get(name, name): _version(name) for name in LOOKED_AT}


def _version(name: str) -> str:
    if not _there(name):
        return "absent"
    try:
        return version(PACKAGES.get(name, name))
    except PackageNotFoundError:
        return "there, of no known version"


def perform(name: str, way: Way, findings: Findings) -> None:
    """Run one section in this process. Whatever goes wrong in it is raised."""
    import_module(f"vitpipe.stages.gpu_check.{name}").run(way, findings)
