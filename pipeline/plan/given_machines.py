"""GPUs and machines that a plan is for, read from YAML: the table that is shipped, and what a user adds to it."""

import difflib
import functools
import time
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

from vitpipe.infra.errors import UsageError
from vitpipe.pipeline.spec.text.layers import merge, read_document
from vitpipe.pipeline.spec.text.problems import Mark, Problems, shown
from vitpipe.pipeline.spec.text.typed import settings
from vitpipe.pipeline.spec.text.yaml_source import Value, parse, plain
from vitpipe.stages.costs.machines import DEFAULT_SHARE, ClusterFacts, GpuKind
from vitpipe.stages.variants import VARIANTS

FORM = (
    "H100: {peak_flops: 989e12, memory_bytes: 80e9, memory_bandwidth: 3.35e12, nvlink_bytes_per_s: 450e9, watts: 700}"
)
CLUSTER_FORM = "network_gbit_per_s: 400"
REQUIRED = tuple(name for name, field in GpuKind.model_fields.items() if field.is_required())
SIDE, TRIES = 768, 4
"""Of the matrices that a core is measured by."""


def gpu_kinds(path: Path | None = None) -> dict[str, GpuKind]:
    """Read the table of GPUs by name; a file adds kinds, or replaces fields of those that are known.

    UsageError for a file that cannot be read, or whose entries are no GPUs: SpecError with each place in it.
    """
    text = resources.files("vitpipe.pipeline.plan").joinpath("gpus.yaml").read_text()
    shipped = parse(text, "gpus.yaml", Problems("read gpus.yaml"))
    known: dict[str, object] = plain(shipped)
    if path is None:
        return {name: GpuKind.model_validate(fields) for name, fields in known.items()}
    problems = Problems(f"read GPUs from {path}")
    given = _mapping(path, problems, FORM)
    for name, fields in given.items():
        _look_at(name, fields, () if name in known else REQUIRED, problems)
    whole = merge(shipped, Value(given, shipped.mark)).data
    made: dict[str, GpuKind] = {}
    for name, fields in whole.items() if isinstance(whole, Mapping) else ():
        kind = settings(fields, GpuKind, name, problems)
        made |= {name: kind} if isinstance(kind, GpuKind) else {}
    problems.stop()
    return made


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
    if path is None:
        return ClusterFacts()
    problems = Problems(f"read machines from {path}")
    given = _mapping(path, problems, CLUSTER_FORM)
    facts = settings(Value(given, Mark(str(path))), ClusterFacts, "machines", problems)
    problems.stop()
    return facts if isinstance(facts, ClusterFacts) else ClusterFacts()


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


def _mapping(path: Path, problems: Problems, form: str) -> Mapping[str, Value]:
    """Read a file that maps names to what they have. UsageError for one that does not."""
    data = read_document(path, problems).data
    problems.stop()
    if not isinstance(data, Mapping) or not data:
        found = "it is empty" if not data else "it maps no names to values"
        raise UsageError(problems.asked, found, f"write such as {form}")
    return data


def _look_at(name: str, kind: Value, required: Sequence[str], problems: Problems) -> None:
    """Note what no type tells: a new kind that lacks fields, and shares of variants that there are none of."""
    if not isinstance(kind.data, Mapping):
        raise UsageError(problems.asked, f"{name} is {shown(plain(kind))}, no fields", f"write such as {FORM}")
    if lacking := [field for field in required if field not in kind.data]:
        found = f"{name} is no kind that is known, and lacks {', '.join(lacking)}"
        raise UsageError(problems.asked, found, f"write such as {FORM}")
    shares = kind.data["utilisation"].data if "utilisation" in kind.data else None
    for variant, share in shares.items() if isinstance(shares, Mapping) else ():
        if variant not in (DEFAULT_SHARE, *VARIANTS):
            near = difflib.get_close_matches(variant, VARIANTS, n=1, cutoff=0.6)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            problems.add(share.at, f"{name}.utilisation", f"there is no variant {shown(variant)}{hint}")
