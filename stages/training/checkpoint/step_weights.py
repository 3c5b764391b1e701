"""The weights of a committed step: found in the node's folder, fetched, every file verified before it is opened.

A Checkpoint's record vouches for its last step; an earlier one that was kept vouches for itself by its sealed manifest.
"""

import re
from pathlib import Path

from vitpipe.infra.errors import IntegrityError, NotFound, UsageError
from vitpipe.infra.json_object import parse_object
from vitpipe.infra.storage.store import Store
from vitpipe.stages.artifacts import Checkpoint, File
from vitpipe.stages.seal import SEAL, broken
from vitpipe.stages.training.checkpoint import committed_steps
from vitpipe.stages.training.checkpoint.committed_steps import STATE, StepManifest, StepPlace
from vitpipe.stages.training.checkpoint.state_files import AVERAGE, LAYOUT, WEIGHTS, StateFiles
from vitpipe.stages.training.config import OF_PRETRAINING_ALONE

_ATTEMPT = re.compile(r"(a\d+(?:\.\d+)?)/attempt\.json")


def open_step(checkpoint: Checkpoint, scratch: Path, step: int | None = None, average: bool = False) -> StateFiles:
    """Copy the files that hold the weights of `step`, the artifact's own when left out, to `scratch` and open them.

    With `average` it is their running average. What only an objective needs, such as a mask token, is not among them.
    Errors: UsageError naming the steps there are, or where no average was kept; IntegrityError for files that are not
    what their manifest says.
    """
    found = checkpoint if step in (None, checkpoint.step) else _at(checkpoint, step)
    name = f"{found.folder}/manifest.json"
    manifest = StepManifest.parse(found.fetch(name, scratch).read_bytes(), name)
    listed = {file.path: file.digest for file in manifest.files}
    state = f"{found.folder}/{STATE}"
    if average and not committed_steps.average_files(listed):
        raise committed_steps.no_average(checkpoint.uri)
    wanted = (f"{state}/{LAYOUT}", f"{state}/{AVERAGE if average else WEIGHTS}-")
    for path in (path for path in listed if path.startswith(wanted)):
        if found.file(path).digest != listed[path]:
            found_at = f"its record says {found.file(path).digest} of {path}, the step's manifest {listed[path]}"
            raise IntegrityError(f"read {checkpoint.uri}", found_at, "use another step")
        found.fetch(path, scratch)
    if not (scratch / state / LAYOUT).exists():
        raise IntegrityError(f"read {checkpoint.uri}", f"step {found.step} lists no {LAYOUT}", "use another step")
    return StateFiles(scratch / state, leave_out=OF_PRETRAINING_ALONE, average=average)


def kept_steps(checkpoint: Checkpoint) -> dict[int, StepPlace]:
    """Every committed step of the same recipe that still lies in the node's folder, ascending; the last one too.

    Of a step that two attempts made it is the newer's, which all after it came from.
    """
    node = checkpoint.store()
    found: dict[int, StepPlace] = {}
    for place in committed_steps.committed(node, _attempts(checkpoint, node)):
        found.setdefault(place.step, place)
    return dict(sorted(found.items()))


def _at(checkpoint: Checkpoint, step: int) -> Checkpoint:
    """The checkpoint as it was at an earlier step."""
    places = kept_steps(checkpoint)
    if step not in places:
        there = ", ".join(map(str, sorted({*places, checkpoint.step})))
        asked, do = f"read step {step} of {checkpoint.uri}", "choose one of them, or `keep` more"
        raise UsageError(asked, f"steps {there} are there", do)
    manifest = places[step].read(checkpoint.store())
    files: tuple[File, ...] = places[step].files(manifest)
    facts = {"folder": manifest.folder, "step": step, "samples_seen": manifest.samples_seen, "files": files}
    return checkpoint.model_copy(update=facts)


def _attempts(checkpoint: Checkpoint, node: Store) -> list[str]:
    """Attempts with the recipe and the inputs of the one that was committed, the newest first."""
    own = checkpoint.file(f"{checkpoint.folder}/manifest.json").at.partition("/")[0]
    wanted = _recipe(node, own)
    named = (_ATTEMPT.fullmatch(entry.path) for entry in node.list("a"))
    others = [match[1] for match in named if match and match[1] != own]
    same = [own, *(name for name in others if wanted is not None and _recipe(node, name) == wanted)]
    return sorted(same, key=lambda name: [int(part) for part in name[1:].split(".")], reverse=True)


def _recipe(node: Store, attempt: str) -> tuple[str, list[list[str]]] | None:
    """Fingerprint and digests of the inputs; None where the attempt does not tell. IntegrityError for damage."""
    name = f"{attempt}/attempt.json"
    try:
        data = node.read(name)
        header = parse_object(data)
        if SEAL in header and (found := broken(data, header)):
            raise ValueError(found)
        inputs = [[ref["record_sha256"] for ref in refs] for _, refs in sorted(header["inputs"].items())]
        return header["fingerprint"], inputs
    except ValueError as error:
        do = "restore it from a copy, or use the last step, which the node's record names"
        raise IntegrityError(f"read {node.uri}/{name}", f"it is damaged: {error}", do) from error
    except (NotFound, KeyError, TypeError, AttributeError):
        return None
