"""What was found on the nodes of a cluster, judged: each thing ok, or which node is not like the others.

Starts nothing and knows no Ray: `infra.ray.cluster_survey` has asked.
"""

import statistics
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from typing import TypeVar

from vitpipe.infra.ray.cluster_survey import Survey
from vitpipe.infra.ray.node_probe import SEEN_S
from vitpipe.pipeline.cli.doctor import MAX_SKEW_S, MIN_FREE_BYTES, Check, settled

LATE_S = 5.0
"""Views that are older keep a newcomer from a run, and ranks from the lease's beat (20 s)."""
SLOW = 0.5
"""A node whose best network is below this part of the median is not like the others."""

Value = TypeVar("Value", bound=Hashable)


def cluster_checks(found: Survey, expected: int = 1) -> Iterator[Check]:
    """Yield every check, host by host where they differ."""
    code = {name: facts.source for name, facts in found.facts.items()}
    yield settled(_nodes(found, expected))
    yield settled(_alike("versions", _versions(found), "install the same environment on every node, such as the image"))
    yield settled(_alike("code", code, "install the same vitpipe on every node"))
    for look in (_clock, _disk, _store, _shared, _gpus, _network):
        yield settled(look(found))


def _nodes(found: Survey, expected: int) -> Check:
    troubles = [f"{name}: {why}" for name, why in {**found.silent, **found.errors}.items()]
    if len(found.names) < expected:
        troubles.append(f"{len(found.names)} of {expected} joined")
    said = "; ".join(troubles) or f"{len(found.names)} answer: {', '.join(found.names)}"
    return Check("nodes", not troubles, said, "look at that node, or leave it out of the cluster")


def _versions(found: Survey) -> dict[str, tuple[tuple[str, str], ...]]:
    return {name: tuple(sorted(facts.versions.items())) for name, facts in found.facts.items()}


def _alike(name: str, values: Mapping[str, Value], do: str) -> Check:
    different = odd(values)
    kinds = Counter(values.values()).most_common()
    if not different:
        return Check(name, True, f"the same on {len(values)} nodes")
    most = kinds[0][0]
    said = [f"{node} has {_difference(value, most)}" for node, value in different.items()]
    return Check(name, False, "; ".join(said), do)


def odd(values: Mapping[str, Value]) -> dict[str, Value]:
    """Pick the nodes whose value most others do not share; all of them where no value is that of most."""
    kinds = Counter(values.values()).most_common()
    if len(kinds) < 2:
        return {}
    tie = kinds[0][1] == kinds[1][1]
    return {node: value for node, value in values.items() if tie or value != kinds[0][0]}


def _difference(value: object, most: object) -> str:
    """Say how a value differs from that of most, by parts where it has some."""
    if isinstance(value, tuple) and isinstance(most, tuple) and value != most:
        others = dict(most)
        parts = [f"{part} {one}, others {others.get(part)}" for part, one in value if others.get(part) != one]
        return "; ".join(parts) or "what the others lack"
    return str(value if not isinstance(value, tuple) else " ".join(f"{part} {one}" for part, one in value))


def _clock(found: Survey) -> Check:
    middle = statistics.median(found.clocks.values()) if found.clocks else 0.0
    apart = {name: ahead - middle for name, ahead in found.clocks.items()}
    if len(apart) == 2:  # nobody knows which of two is right: by how much they differ, not half of it
        apart = {name: 2 * ahead for name, ahead in apart.items()}
    wrong = {name: ahead for name, ahead in apart.items() if abs(ahead) > MAX_SKEW_S}
    said = "; ".join(f"{name} is {ahead:+.1f} s apart from the others" for name, ahead in wrong.items())
    most = max(map(abs, apart.values()), default=0.0)
    return Check("clocks", not wrong, said or f"at most {most:.1f} s apart", "set the clock of that node (NTP)")


def _disk(found: Survey) -> Check:
    bad = [f"{name}: {one.scratch}: {one.scratch_trouble}" for name, one in found.facts.items() if one.scratch_trouble]
    free = {name: one.free_bytes for name, one in found.facts.items()}
    bad += [
        f"{name}: {_gib(room)} free in {found.facts[name].scratch}"
        for name, room in free.items()
        if room < MIN_FREE_BYTES
    ]
    middle = statistics.median(free.values()) if free else 0
    short = {name: room for name, room in free.items() if room < middle / 2}
    little = [
        f"warning: {name} has {_gib(room)}, half of the others have {_gib(middle)}" for name, room in short.items()
    ]
    said = "; ".join([*bad, *little]) or f"{_gib(min(free.values(), default=0))} free at least"
    return Check(
        "disks", not bad, said, f"free some space, or set TMPDIR to a local disk ({_gib(MIN_FREE_BYTES)} at least)"
    )


def _store(found: Survey) -> Check:
    broken = [f"{name}: {'; '.join(wrong)}" for name, wrong in found.store.items() if wrong]
    said = "; ".join(broken) or f"{len(found.store)} nodes wrote, read, swapped, listed and deleted a probe"
    return Check("store", not broken, said, "give that node the credentials, or the mount, of the others")


def _shared(found: Survey) -> Check:
    troubles, warnings, slowest = [], [], 0.0
    for pair in found.pairs:
        who = f"{pair.reader} sees what {pair.writer}"
        for what, seconds in (("creates", pair.seen_s), ("changes", pair.changed_s)):
            if seconds is None:
                troubles.append(f"{who} {what} not within {SEEN_S:g} s")
            elif seconds > LATE_S:
                troubles.append(f"{who} {what} only after {seconds:.1f} s")
            slowest = max(slowest, seconds or 0.0)
        if not pair.refused:
            troubles.append(f"{pair.reader} can create the name that {pair.writer} has created")
        if pair.locked_out is False:
            warnings.append(f"{pair.writer} and {pair.reader}")
    if found.winners not in (None, 1):
        troubles.append(f"{found.winners} nodes were told that they created the same name")
    locks = f"; warning: locks do not hold between {', '.join(sorted(warnings))}: commits need none" if warnings else ""
    few = f"{len(found.pairs)} pairs see each other's writes within {slowest:.1f} s"
    do = "mount the store with `actimeo=5` or `noac` (NFS), or use s3://; see docs/how-to/slurm.md"
    return Check("between nodes", not troubles, ("; ".join(troubles) or few) + locks, do)


def _gpus(found: Survey) -> Check:
    bad = [f"{name}: {one.gpu_trouble}" for name, one in found.facts.items() if one.gpu_trouble]
    with_some = {name: one.gpus for name, one in found.facts.items() if one.gpus}
    for name, gpus in with_some.items():
        if broken := [number for number, gpu in enumerate(gpus) if gpu.ecc_errors]:
            bad.append(f"{name}: memory errors that were not corrected on GPU {', '.join(map(str, broken))}")
    kinds = {name: _kind([(gpu.name, gpu.memory, gpu.driver) for gpu in gpus]) for name, gpus in with_some.items()}
    bad += [f"{name} has {kind}" for name, kind in odd(kinds).items()]
    said = "; ".join(bad) or (f"{len(kinds)} nodes with {next(iter(kinds.values()))}" if kinds else "none: on CPUs")
    return Check("GPUs", not bad, said, "repair that node's driver or GPU (`nvidia-smi -q`), or leave the node out")


def _kind(gpus: list[tuple[str, str, str]]) -> str:
    return ", ".join(
        f"{count} x {name} ({memory}, driver {driver})" for (name, memory, driver), count in Counter(gpus).items()
    )


def _network(found: Survey) -> Check:
    if len(found.names) < 2:
        return Check("network", True, "one node: none to measure")
    best: dict[str, float] = {}
    for pair, speed in found.networks.items():
        best |= {name: max(speed, best.get(name, 0.0)) for name in pair}
    middle = statistics.median(best.values()) if best else 0.0
    late = {name: speed for name, speed in best.items() if len(best) > 2 and speed < SLOW * middle}
    slow = [f"{name} reaches {_rate(speed)}, half of the others {_rate(middle)}" for name, speed in late.items()]
    if found.all_together is None:
        slow.append("an all-reduce over all nodes did not end")
    two = f"two by two {_rate(min(best.values()))} to {_rate(max(best.values()))}" if best else ""
    said = "; ".join(slow) or f"all-reduce over all nodes {_rate(found.all_together or 0)}, {two}"
    do = "look at that node's links, and at NCCL_SOCKET_IFNAME, NCCL_IB_HCA and NCCL's network plugin there"
    return Check("network", not slow, said, do)


def _rate(speed: float) -> str:
    return f"{speed / 1e9:.2f} GB/s"


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"
