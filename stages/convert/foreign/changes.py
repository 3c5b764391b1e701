"""Compare the foreign weights that lie there now with what was converted: sizes and times, or digests. No torch.

Files are matched by name, a single file of tensors by its place: it may be called otherwise now.
"""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vitpipe.infra.errors import UsageError, VitpipeError
from vitpipe.stages.artifacts import Weights
from vitpipe.stages.commits import at_commits, compared
from vitpipe.stages.convert.config import ConvertConfig, ConvertResources, ForeignSource
from vitpipe.stages.convert.foreign.located import COMPANIONS, INDEX, TENSORS, Located, is_local, states
from vitpipe.stages.convert.foreign.weights import ForeignWeights, glance
from vitpipe.stages.images.classes import LABELS
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.sighting import Difference, Sighted

SOURCE = "source.json"
_PREPARATION = "preparation"


def look(config: ConvertConfig, resources: ConvertResources, weights: Weights, record: Any, digests: bool) -> Sighted:
    """What became of the weights of `config.source`; never raises for what cannot be reached or read of it.

    Errors: IntegrityError, NotFound and StorageError for the file of `weights` that says what was taken.
    """
    if config.source is None:
        return Sighted(is_same=True)
    if not weights.has(SOURCE):
        return Sighted()
    if resources.trust_source and not digests:
        return Sighted(note="the source was not looked at: resources.trust_source")
    path = config.source.path
    taken = weights.read_json(SOURCE)
    try:
        source, commits = at_commits(config.source)
        path = source.path
        folder, names = _where(path, [str(file["path"]) for file in taken["files"]])
        if other := compared(weights.commits, commits):
            same = _compared(path, folder, names, taken, digests=False).is_same
            return other.with_same_files() if same else other
        sighted = _compared(path, folder, names, taken, digests)
        return sighted if sighted.changes else _reread(source, weights, taken, sighted)
    except VitpipeError as error:
        of_a_file = error.asked.startswith("read ") or not error.found
        return Sighted.unseen(f"{path}: {error.in_brief if of_a_file else error.found}")
    except OSError as error:
        return Sighted.unseen(f"{error.filename or path}: {error.strerror or error}")


def _compared(path: str, folder: str, names: Mapping[str, str], taken: Mapping[str, Any], digests: bool) -> Sighted:
    """`names` are today's by yesterday's."""
    there = states(folder, {*names.values(), *COMPANIONS, INDEX})
    if not set(names.values()) & there.keys():
        raise UsageError(f"look at {path}", "nothing of it is there, or on this machine")
    was = {str(file["path"]): file for file in taken["files"]}
    marks = taken.get("marks", {})
    gone = [name for name, now in names.items() if now not in there]
    added = sorted(there.keys() - set(names.values()))
    changed = [name for name, now in names.items() if now in there and there[now][0] != was[name]["bytes"]]
    by_digest = digests and not (gone or added or changed)
    if by_digest:
        changed = [name for name, now in names.items() if _sha256(folder, now) != was[name]["sha256"]]
    found = Difference(len(added), len(gone), len(changed), examples=(*added, *gone, *changed))
    what = f"{len(was)} files of {path}"
    if found.differs:
        return Sighted.other(found.text(what), by_digest)
    touched = [name for name, now in names.items() if marks.get(name) and marks[name] != there[now][1]]
    if touched and not digests:
        hint = Difference(touched=len(touched), touched_examples=tuple(touched)).hint(what)
        return Sighted(note=f"the source may have changed: {hint}", is_loud=True)
    known = digests or all(marks.get(name) for name in names)
    return Sighted(note=f"the source is as it was converted, {what}", is_same=known)


def _reread(source: ForeignSource, weights: Weights, taken: Mapping[str, Any], sighted: Sighted) -> Sighted:
    """The same, unless an earlier version understood the same files otherwise: another function is other weights, what
    it only did not carry is a note, and nothing that another run adopts."""
    if not is_local(source.path):
        if _PREPARATION in taken or not any(file["path"] in COMPANIONS for file in taken["files"]):
            return sighted
        unread = f"{source.path} was converted by a version that did not read all that its configs say"
        return replace(sighted, note=f"{sighted.note}; {unread}", is_same=False)
    try:
        now = glance(source)
    except UsageError as error:
        found = f"{source.path} was taken and would be refused now, for {error.found}"
        return Sighted.other(f"{found}; resources.trust_source: true keeps what was converted")
    if misread := _misread(now, taken):
        return Sighted.other(f"{source.path} was read as {misread}")
    uncarried = [f"prepares images by {now.preparation}"] if now.preparation and not taken.get(_PREPARATION) else []
    if now.sigmoid and weights.read_json(LABELS).get("objective") != "sigmoid":
        uncarried.append("learned each class by itself")
    if not uncarried:
        return sighted
    told = f"{source.path} {' and '.join(uncarried)}, which an earlier version did not carry"
    return replace(sighted, note=f"{sighted.note}; {told}", is_same=False)


def _misread(now: ForeignWeights, taken: Mapping[str, Any]) -> str:
    """How it was understood as another function, in words; empty where it was not."""
    pixels = [list(now.pixels.mean), list(now.pixels.std)]
    if pixels != [taken["mean"], taken["std"]]:
        return f"mean {taken['mean']} and std {taken['std']}, now it is as {pixels[0]} and {pixels[1]}"
    try:
        was = ModelSettings.model_validate(taken["model"])
    except ValidationError:  # of fields that are no more: there is nothing to compare
        return ""
    return "" if now.settings == was else "another model than now"


def _where(path: str, was: list[str]) -> tuple[str, dict[str, str]]:
    """The folder, and today's name of each of yesterday's files."""
    place = os.path.abspath(path.removeprefix("file://")) if is_local(path) else path.rstrip("/")
    if not place.lower().endswith(TENSORS):
        return place, {name: name for name in was}
    folder, _, today = place.rpartition("/")
    return folder or "/", {name: today if name.endswith(TENSORS) else name for name in was}


def _sha256(folder: str, name: str) -> str:
    with tempfile.TemporaryDirectory() as scratch:
        return Located(folder, (name,), None, ()).fetch(name, Path(scratch))[1].sha256
