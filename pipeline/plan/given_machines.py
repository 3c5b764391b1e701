"""GPUs and machines that a plan is for, read from YAML: the table that is shipped, and what a user adds to it."""

import difflib
import functools
import time
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from vitpipe.infra.errors import UsageError
from vitpipe.stages.costs.machines import ClusterFacts, GpuKind
from vitpipe.stages.settings import Settings, in_brief

FORM = "H100: {peak_flops: 989e12, memory_bytes: 80e9, utilisation: {default: 0.4, B/16: 0.45}}"
SIDE, TRIES = 768, 4
"""Of the matrices that a core is measured by."""
S = TypeVar("S", bound=Settings)


def gpu_kinds(path: Path | None = None) -> dict[str, GpuKind]:
    """Read the table of GPUs by name; a file adds kinds, or replaces fields of those that are known.

    UsageError for a file that cannot be read, or whose entries are no GPUs.
    """
    text = resources.files("vitpipe.pipeline.plan").joinpath("gpus.yaml").read_text()
    known: dict[str, dict[str, Any]] = YAML(typ="safe", pure=True).load(text)
    for name, fields in (_mapping(path) if path else {}).items():
        if not isinstance(fields, Mapping):
            raise UsageError(f"read GPUs from {path}", f"{name} is {fields!r}, no fields", f"write {FORM}")
        known[str(name)] = {**known.get(str(name), {}), **fields}
    return {name: _typed(GpuKind, fields, path, name) for name, fields in known.items()}


def gpu_kind(kinds: Mapping[str, GpuKind], asked: str) -> tuple[str, GpuKind]:
    """Find a kind by its name, whatever its letters' case. UsageError with the known ones."""
    by_name = {name.upper(): name for name in kinds}
    name = by_name.get(asked.upper())
    if name is None:
        near = difflib.get_close_matches(asked.upper(), by_name, n=1)
        do = f"name one of them{f' (nearest is {near[0]})' if near else ''}, or describe it by --gpus-file FILE"
        raise UsageError(f"plan for the GPU {asked}", f"known are {', '.join(kinds)}", do)
    return name, kinds[name]


def cluster(path: Path | None = None) -> ClusterFacts:
    """Read what is known of the machines; what a file leaves out is assumed. UsageError as for `gpu_kinds`."""
    return _typed(ClusterFacts, _mapping(path), path, "") if path else ClusterFacts()


def with_measured_core(facts: ClusterFacts) -> ClusterFacts:
    """Say how fast a core is, where nobody did: as fast as this machine's."""
    if facts.core_gflops is not None:
        return facts
    return facts.model_copy(update={"core_gflops": core_gflops()})


@functools.cache
def core_gflops() -> float:
    """Measure fp32 matrix products of one core, GFLOP/s by its own time: a tenth of a second, once a process."""
    import numpy as np  # 0.1 s that a plan for GPUs need not spend
    from threadpoolctl import threadpool_limits

    one = np.ones((SIDE, SIDE), dtype=np.float32)
    best = float("inf")
    with threadpool_limits(limits=1):  # threads that wait for each other spin, and would count as work
        for _ in range(TRIES):
            began = time.process_time()
            one @ one
            best = min(best, time.process_time() - began)
    return 2 * SIDE**3 / max(best, 1e-6) / 1e9


def _mapping(path: Path) -> dict[str, Any]:
    asked = f"read {path}"
    try:
        found = YAML(typ="safe", pure=True).load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(asked, str(error), "name a YAML file") from error
    except YAMLError as error:
        raise UsageError(asked, f"it is no YAML: {' '.join(str(error).split())}", "mend it") from error
    if not isinstance(found, dict) or not found:
        raise UsageError(asked, "it is no mapping of names to values", f"write such as {FORM}")
    return found


def _typed(cls: type[S], fields: Mapping[str, Any], path: Path | None, name: str) -> S:
    try:
        return cls.model_validate(fields)
    except ValidationError as error:
        known = ", ".join(cls.model_fields)
        raise UsageError(
            f"read {name or 'machines'} from {path}", in_brief(error), f"its fields are {known}"
        ) from error
