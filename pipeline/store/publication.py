"""What of a committed node goes to the Hugging Face Hub, and what stands beside it: card, results, digests.

Believes only records. Knows which files a reader of the Hub looks for; how they get there knows `infra.storage`.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from vitpipe.infra.errors import IntegrityError, UsageError
from vitpipe.infra.storage.hub_names import HubPlace, hub_place, is_hub
from vitpipe.infra.storage.hub_push import Pushed, push
from vitpipe.infra.storage.hub_upload import SMALL_BYTES, Outgoing, outgoing
from vitpipe.infra.storage.store import Store
from vitpipe.pipeline.store.contents import open_run
from vitpipe.pipeline.store.records import Committed
from vitpipe.pipeline.store.retrieval import Progress, committed_artifacts, watched
from vitpipe.stages.artifacts import Artifact, Checkpoint, File, Score, ShardSet, Weights, carries_weights
from vitpipe.stages.images.manifest import MANIFEST, load_manifest
from vitpipe.stages.report.card import report_json, results_csv
from vitpipe.stages.report.headline import headline
from vitpipe.stages.report.hub_card import Origins, hub_data_card, hub_model_card
from vitpipe.stages.report.record_lineage import LineageNode, benchmarks, rests_on, walk
from vitpipe.stages.report.results import gains, rows

FIRST = ("huggingface", "timm", "native")
"""Formats whose files stand at the root of a repository, the first of them that a node has."""
BESIDE = ("labels.json", "parity.json", "preparation.json")
"""Files of weights that say more of them, without a place of this machine in them."""
CARD = "README.md"
_PLACES = re.compile(r"(?:file|s3)://[^\s\"',;]+")


def publish(
    run_uri: str, node: str, to: str, progress: Progress, *, private: bool = False, replace: bool = False
) -> Pushed:
    """Push a node's weights or shards, with a card and results, to `hf://owner/name`; a second time nothing changes.

    Errors: UsageError for an unknown run or node, one that has nothing to push, and a repository with files of others;
    IntegrityError for a damaged file; StorageError for a refused token and the network.
    """
    asked = f"push {node} of {run_uri}"
    id, committed = _one(run_uri, node)
    made = committed.artifact()
    place = _place(to, "dataset" if isinstance(made, ShardSet) else "model", asked)
    run = open_run(run_uri, "push")
    origins = Origins(place.repo, run.uri.rpartition("/")[2], id, committed.sha256)
    if isinstance(made, ShardSet):
        chosen = {file: file.path for file in made.files if file.path.endswith((".tar", ".index", MANIFEST))}
        beside = [outgoing(CARD, hub_data_card(origins, made, load_manifest(made)))]
    elif carries_weights(made):
        chosen = _weights_files(made)
        beside = _card_and_results(run.uri, made, committed, origins)
    else:
        raise _nothing_to_push(run_uri, id, made, asked)
    about = {"run": origins.run, "node": id, "record_sha256": origins.record_sha256}
    by_path = {path: file for file, path in chosen.items()}
    with watched(progress, by_path.values(), "written_bytes") as finished:
        files = [*(_outgoing(run.child(id), file, path) for path, file in by_path.items()), *beside]

        def told(path: str) -> None:
            if path in by_path:
                finished(by_path[path])

        return push(place, files, about, private=private, replace=replace, finished=told)


def _one(run_uri: str, node: str) -> tuple[str, Committed]:
    found = dict(committed_artifacts(run_uri, "push", node))
    if len(found) > 1:
        raise UsageError(
            f"push {node!r} of {run_uri}", f"it stands for {len(found)} siblings", f"name one: {', '.join(found)}"
        )
    return next(iter(found.items()))


def _place(to: str, kind: str, asked: str) -> HubPlace:
    do = "write hf://owner/name, with @branch behind it for another branch than main"
    if not is_hub(to):
        raise UsageError(asked, f"{to!r} is no place on the Hugging Face Hub", do)
    try:
        place = hub_place(to, "dataset" if kind == "dataset" else "model")
    except ValueError as error:
        raise UsageError(asked, str(error), do) from None
    if place.kind != kind:
        raise UsageError(asked, f"it makes a {kind}, {to} is a {place.kind}", f"write hf://{place.repo}")
    return place


def _nothing_to_push(run_uri: str, id: str, made: Artifact, asked: str) -> UsageError:
    """Name the nodes of the run that made weights of it."""
    others = dict(committed_artifacts(run_uri, "push", None))
    digest = made.origin.record_sha256 if made.origin else ""
    of_it = [
        name
        for name, other in others.items()
        if other.record.output["kind"] in (Weights.kind, Score.kind)
        and carries_weights(other.artifact())
        and (not isinstance(made, Checkpoint) or digest in _taken(other))
    ]
    do = f"push {' or '.join(of_it)}" if of_it else "add a `convert` node that needs it, run, and push that"
    what = "a training's state, in no format that others read" if isinstance(made, Checkpoint) else "no weights"
    return UsageError(asked, f"it is a {made.kind}, {what}", do)


def _taken(committed: Committed) -> set[str]:
    return {ref.record_sha256 for refs in committed.record.inputs.values() for ref in refs}


def _weights_files(made: Weights | Score) -> dict[File, str]:
    """Each file that is pushed, and its path there."""
    formats = made.formats if isinstance(made, Weights) else ("native",)
    root = _root(formats)
    found = {}
    for file in made.files:
        folder, _, rest = file.path.partition("/")
        if rest and folder in formats:
            found[file] = rest if folder == root else file.path
        elif file.path in BESIDE:
            found[file] = file.path
    return {file: path for file, path in found.items() if path != CARD}  # a format's own is about that format alone


def _root(formats: Sequence[str]) -> str:
    return next((name for name in FIRST if name in formats), formats[0])


def _card_and_results(run_uri: str, made: Weights | Score, committed: Committed, origins: Origins) -> list[Outgoing]:
    """README.md, results.csv and results.json: of all scores of the run that rest on these weights."""
    scores = [made] if isinstance(made, Score) else list(_scores_of(run_uri, committed.sha256))
    lineage = walk([made, *scores])
    table = rows(scores, benchmarks(lineage), {node.uri: node.name for node in lineage})
    found = gains(table)
    sentence = headline(table, found) if table else "Weights without scores"
    formats = made.formats if isinstance(made, Weights) else ("native",)
    root = _root(formats)
    assert made.model is not None
    card = hub_model_card(
        origins,
        made.model,
        [root, *(name for name in formats if name != root)],
        _license(made, lineage),
        sentence,
        table,
        rests_on(committed.sha256, lineage),
    )
    results = {
        "results.csv": results_csv(table, run_uri, lineage),
        "results.json": report_json(sentence, table, found, lineage, None),
    }
    return [outgoing(CARD, card), *(outgoing(path, _without_places(data)) for path, data in results.items())]


def _scores_of(run_uri: str, record_sha256: str) -> Iterator[Score]:
    """Scores of the run whose lineage holds this record."""
    for _, committed in committed_artifacts(run_uri, "push", None):
        made = committed.artifact()
        if isinstance(made, Score) and any(node.record_sha256 == record_sha256 for node in walk([made])):
            yield made


def _license(made: Weights | Score, lineage: Sequence[LineageNode]) -> str | None:
    """What the convert node says; of a fine-tuning, the one that its weights came from."""
    wanted = {made.uri, str(made.protocol.get("weights")) if isinstance(made, Score) else made.uri}
    said = (node.record.config.get("license") for node in lineage if node.record and node.uri in wanted)
    return next((str(one) for one in said if one), None)


def _without_places(data: bytes) -> bytes:
    """Of each store's URI the run and the node: where a person keeps runs is nobody's business."""

    def short(match: re.Match[str]) -> str:
        return "/".join(match[0].rstrip("/").split("/")[-2:])

    return _PLACES.sub(short, data.decode()).encode()


def _outgoing(node: Store, file: File, path: str) -> Outgoing:
    if file.bytes > SMALL_BYTES:
        return Outgoing(path, file.digest, (file.sha256,), partial(_brought, node, file))
    data = node.read(file.at)
    if hashlib.sha256(data).hexdigest() != file.sha256:
        found = f"{node.uri}/{file.at} is not what its record says"
        raise IntegrityError(f"push {path}", found, "`vitpipe artifacts verify` tells what else is damaged")
    return outgoing(path, data, partial(_read_again, node, file))


def _read_again(node: Store, file: File, scratch: Path) -> bytes:
    return node.read(file.at)


def _brought(node: Store, file: File, scratch: Path) -> Path:
    """A large file on this machine: where it lies, or a copy that its record proves."""
    if node.uri.startswith("file://"):
        return Path(node.uri.removeprefix("file://"), file.at)
    node.download(file.at, scratch / file.sha256, expect=file.digest)
    return scratch / file.sha256
