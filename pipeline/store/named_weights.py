"""The WEIGHTS of `vitpipe predict`: a local folder of native weights, or what a node committed. Opens no tensor."""

import re
from collections.abc import Callable
from pathlib import Path

from vitpipe.infra.errors import NotFound, UsageError
from vitpipe.infra.storage.hub_names import is_hub
from vitpipe.pipeline.spec.places import absolute_uri
from vitpipe.pipeline.store.contents import committed_nodes, open_run
from vitpipe.pipeline.store.hub_weights import weights_on_hub
from vitpipe.pipeline.store.records import RECORD
from vitpipe.pipeline.store.runs import find_run, ignore
from vitpipe.stages.artifacts import Checkpoint, Score, Weights, carries_weights
from vitpipe.stages.record import load_artifact

TENSORS = "model.safetensors"
_IN_YAML = re.compile(r"(.+\.ya?ml)((?:/.+)?)")
_DO = "give a folder with native weights, a node's URI, RUN/NODE, or hf://owner/name"


def find_weights(text: str, tell: Callable[[str], None] = ignore) -> Weights | Score | Path:
    """Find what WEIGHTS names. UsageError for what is not there or has no weights, with the nearest that has.

    `tell` is as for `find_run`.
    """
    match = _IN_YAML.fullmatch(text)
    if match and Path(match[1]).is_file():
        return _of_node(find_run(match[1], tell).uri + match[2])
    if is_hub(text):
        return weights_on_hub(text, tell)
    if "://" not in text:
        return _local(Path(text).expanduser(), text)
    try:
        uri = absolute_uri(text, Path.cwd())
    except ValueError as error:
        raise UsageError("find the weights", str(error), _DO) from None
    return _local(Path(uri.removeprefix("file://")), text) if uri.startswith("file://") else _of_node(uri)


def _local(path: Path, text: str) -> Weights | Score | Path:
    if path.is_file():
        if path.name == TENSORS:
            return path.parent
        found = "it is a single file, and native weights are a folder: model.safetensors with model.json beside it"
        do = "a pickle (.pt, .pth, .bin) can run code and is never opened; `convert` brings foreign weights in"
        raise UsageError(f"predict with {text}", found, do)
    if not (path / RECORD).is_file() and any((place / TENSORS).is_file() for place in (path, path / "native")):
        return path
    return _of_node(f"file://{path.absolute()}")


def _of_node(uri: str) -> Weights | Score:
    try:
        artifact = load_artifact(uri)
    except NotFound:
        raise _nothing_there(uri) from None
    if carries_weights(artifact):
        return artifact
    do = "convert it, and predict with the result" if isinstance(artifact, Checkpoint) else _DO
    raise UsageError(f"predict with {uri}", f"it is a {artifact.kind} without weights", do)


def _nothing_there(uri: str) -> UsageError:
    """Say which nodes there are, if the URI is a run's or of something in one; else that there is nothing."""
    asked, do = f"predict with {uri}", _DO
    for levels in (0, 1, 2):
        run_uri, node = _cut(uri, levels)
        try:
            run = open_run(run_uri, "predict with")
        except UsageError as error:
            do = error.do if levels == 1 and error.do.startswith("did you mean") else do
            continue
        try:
            committed_nodes(run, "predict with", node or None)
        except UsageError as error:
            return error
        carriers = [id for id in committed_nodes(run, asked, None) if carries_weights(load_artifact(f"{run_uri}/{id}"))]
        there = f"there are {', '.join(carriers)}" if carriers else "none that is committed carries weights"
        return UsageError(asked, "it stands for siblings" if node else "it is a run: name one of its nodes", there)
    path = Path(uri.removeprefix("file://"))
    if uri.startswith("file://") and path.is_dir():
        listed = ", ".join(sorted(entry.name for entry in path.iterdir())[:8]) or "nothing"
        return UsageError(asked, f"no native weights and no record there, but {listed}", do)
    return UsageError(asked, "there is nothing", do)


def _cut(uri: str, levels: int) -> tuple[str, str]:
    parts = uri.rsplit("/", levels)
    return parts[0], "/".join(parts[1:])
