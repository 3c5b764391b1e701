"""A finished training as it is compared with another: bit by bit, or within rounding."""

import json
from dataclasses import dataclass

from vitpipe.stages.artifacts import Checkpoint
from vitpipe.stages.contract import Out
from vitpipe.stages.gpu_check.findings import Cell, Findings
from vitpipe.stages.gpu_check.losses import STEPS, WIDE


@dataclass(frozen=True)
class Golden:
    """One training as it is compared."""

    losses: list[str]
    """In hexadecimal, every bit of them."""
    digests: dict[str, str]
    """SHA-256 of each file of the last step's state."""

    def values(self) -> list[float]:
        """The losses as numbers."""
        return [float.fromhex(loss) for loss in self.losses]


def golden(out: Out, made: Checkpoint) -> Golden:
    """Read what a training came to."""
    lines = [json.loads(line) for line in out.node.read(made.file("metrics.jsonl").at).splitlines()]
    state = {file.path: file.sha256 for file in made.files if "/state/" in file.path}
    return Golden([line["loss_hex"] for line in lines], state)


def compare_bits(findings: Findings, name: str, found: Golden, wanted: Golden, must: bool = True) -> None:
    """Add a row: how many losses and files of the last state are the same bits."""
    losses = sum(one == other for one, other in zip(found.losses, wanted.losses, strict=False))
    files = sum(found.digests.get(path) == digest for path, digest in wanted.digests.items())
    same = found == wanted and bool(wanted.digests)
    cells: dict[str, Cell] = {
        "way": name,
        "losses equal": f"{losses} of {len(wanted.losses)}",
        "files of the state equal": f"{files} of {len(wanted.digests)}",
        "apart": 0.0 if same else apart(found, wanted),
        "at most": 0.0,
    }
    findings.row(cells, ok=same if must else None)


def compare_near(findings: Findings, name: str, found: Golden, wanted: Golden) -> None:
    """Add a row: how far the losses are apart, which were summed in another order."""
    most, losses = WIDE["fp32"] * len(wanted.losses) / STEPS, apart(found, wanted)
    equal = sum(one == other for one, other in zip(found.losses, wanted.losses, strict=False))
    cells: dict[str, Cell] = {
        "way": name,
        "losses equal": f"{equal} of {len(wanted.losses)}",
        "files of the state equal": None,
        "apart": losses,
        "at most": most,
    }
    findings.row(cells, ok=losses <= most)


def apart(found: Golden, wanted: Golden) -> float:
    """Find the largest relative difference of a loss; infinite where steps are missing."""
    if len(found.losses) != len(wanted.losses):
        return float("inf")
    pairs = zip(found.values(), wanted.values(), strict=True)
    return max(abs(one - other) / abs(other) if one == one else float("inf") for one, other in pairs)
