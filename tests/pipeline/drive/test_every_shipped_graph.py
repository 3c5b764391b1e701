"""Every shipped config and preset, shrunk, runs from files of the official layouts to its report: no node is untried.

Each test runs what is new in kind in its config, with all that it needs, by the real runner in one store, where equal
results are taken over. Together they have to have run every node of every config.
"""

import copy
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from inprocess import InProcessCluster, Unranked
from official_files import official
from official_layouts import LAYOUTS, V2, VAL, write_all, write_real, write_v2
from PIL import Image
from shrunk_configs import ROOT, SHIPPED, SMALL_ENCODER, SMALL_HYBRID, SMALL_RESNET, Part, new_part, shrunk
from tiny_stages import tiny_ways

from vitpipe.infra.lease_state import Timing
from vitpipe.pipeline.drive.runner import Outcome, run
from vitpipe.pipeline.spec.graph import Graph, Node
from vitpipe.pipeline.spec.load import PipelineSpec, load
from vitpipe.stages import variants
from vitpipe.stages.artifacts import Score
from vitpipe.stages.settings import Duration
from vitpipe.stages.vit.build import build_model
from vitpipe.stages.vit.native import load_weights

QUICK = Timing(renew_s=0.2, watch_s=0.5, commit_s=100, poll_s=0.02, look_s=0.02)
CALLED = {"oxford-iiit-pet": "pets", "imagenet-21k": "own-images", "imagenet-val": "imagenet-official"}
"""Folders of the configs whose files another layout has."""
OFFICIAL = ("scaling", "transfer", "benchmarks")
"""Configs whose `data/imagenet` is as its authors lay it out; elsewhere it is folders of train and test."""


class Alone(InProcessCluster):
    """Ranks share this process, so one gang has it at a time."""

    _process = threading.Lock()

    def gang(self, fn: Any, *, resources: Any) -> None:
        with self._process:
            super().gang(fn, resources=resources)


class Clusters(Unranked):
    dashboard_url = ""

    def named(self, node: str, **_: object) -> Alone:
        return Alone()


@contextmanager
def one_gang_at_a_time(run: str, cpus_wanted: float) -> Iterator[Clusters]:
    yield Clusters()


def go(spec: PipelineSpec) -> Outcome:
    return run(spec, (), tiny_ways(timing=QUICK, connect=one_gang_at_a_time))


def takes_a_file(path: Path) -> bool:
    return "vars.file" in path.read_text() and path.parent.name != "presets"


def name_of(path: Path) -> str:
    return f"{path.parent.name}-{path.stem}" if path.stem != "folder" else "my-images"


@dataclass
class Workplace:
    """One store, and the kinds of nodes that have run in it."""

    folder: Path
    ran: set[str] = field(default_factory=set)

    def spec(self, path: Path) -> PipelineSpec:
        """The config, shrunk, as if it were typed in a folder with all the data below `data`."""
        here = self.folder / ("official" if path.stem in OFFICIAL else "folders")
        store = f"file://{self.folder}/runs"
        said = [f"store={store}", f"name={name_of(path)}", "reuse=store"]
        text = path.read_text()
        if "file://./runs/my-images/weights" in text:
            said.append(f"vars.weights={store}/my-images/weights")
        if "/usr/share/datasets/fashion-mnist" in text:
            said.append(f"vars.clothes={self.folder}/files/fashion-mnist")
        if takes_a_file(path):
            said.append(f"vars.file={self.folder}/B_16.npz")
        if path.stem == "deit3-finetune":
            said.append("vars.head=zero")  # the file's head is of other classes
        return shrunk(load(path, said, env={}, folder=here))

    def part(self, path: Path) -> Part:
        return new_part(self.spec(path), self.ran)

    def run(self, path: Path) -> Part:
        """Run what is new in kind. Whoever runs alone has first what other presets begin with."""
        self.prepare(path)
        part = self.part(path)
        if part.spec.graph.nodes:
            spec = replace(part.spec, document={**part.spec.document, "of": path.stem})
            go(spec)
            self.ran |= {part.kinds[id] for id in part.spec.graph.nodes}
        return part

    def prepare(self, path: Path) -> None:
        weights = self.folder / "runs/my-images/weights"
        if path != SHIPPED[0] and not (weights / "record.json").exists():
            self.run(SHIPPED[0])
        if takes_a_file(path) and not (self.folder / "B_16.npz").exists():
            self.run(ROOT / "paper/vit-b16-i21k.yaml")  # where it ran in kind, another has left such a file
            made = sorted(self.folder.glob("runs/paper-vit-*/weights/a*/google/model.npz"))
            shutil.copy(made[0], self.folder / "B_16.npz")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    root = tmp_path_factory.mktemp("shipped")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(variants.RESNETS, *SMALL_RESNET)
        patch.setitem(variants._ENCODERS, *SMALL_ENCODER)
        patch.setitem(variants.HYBRIDS, *SMALL_HYBRID)
        write_all(root / "files", patch)
        for here, imagenet in (("official", "imagenet-official"), ("folders", "imagenet-folders")):
            links = {name: name for name in LAYOUTS} | CALLED | {"imagenet": imagenet}
            (root / here / "data").mkdir(parents=True)
            for name, target in links.items():
                (root / here / "data" / name).symlink_to(root / "files" / target)
            (root / here / "images").symlink_to(root / "files/own-images")
        yield Workplace(root)


@pytest.mark.parametrize("path", SHIPPED, ids=name_of)
def test_every_node_of_a_shipped_config_runs(path: Path, place: Workplace) -> None:
    part = place.run(path)
    never = [id for id, kind in part.kinds.items() if kind not in place.ran]
    assert never == []


def test_a_node_that_is_unlike_all_others_is_told() -> None:
    """The check itself: after a run of everything but one node, or with a field that no other has, it is listed."""
    whole = shrunk(load(ROOT / "quickstart.yaml", [], env={}))
    ran = set(new_part(whole, ()).kinds.values())
    assert not new_part(whole, ran).spec.graph.nodes
    for id in whole.graph.nodes:
        one = new_part(whole, ran - {new_part(whole, ()).kinds[id]})
        assert id in one.spec.graph.nodes and set(one.spec.graph.nodes) <= {id} | upstream(whole.graph, id)
    nodes = dict(whole.graph.nodes)
    changed = nodes["probe"].config.model_copy(update={"eval_resize": "resmall_crop"})
    nodes["probe"] = replace(copy.copy(nodes["probe"]), config=changed)
    assert "probe" in new_part(replace(whole, graph=Graph(nodes)), ran).spec.graph.nodes


def test_real_and_v2_scores_are_the_published_rules(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny model fine-tuned on ImageNet as the paper's config says, scored on official files of which some labels
    are what it answers. ReaL: the answer is among the right labels; images without any count neither way."""
    spec, root = place.spec(ROOT / "paper/vit-b16-i21k.yaml"), place.folder / "by-hand"
    nodes = {id: spec.graph.nodes[id] for id in TUNED + SCORED}
    nodes["images"] = replace(nodes["images"], needs={"exclude": ("imagenet",)})
    longer = {"total": Duration.parse("12 steps"), "peak_lr": 0.1, "precision": "fp32"}
    nodes["transfer/imagenet"] = changed(nodes["transfer/imagenet"], longer)
    for data in ("real-data", "v2-data"):
        source = nodes[data].config.source.model_copy(update={"root": str(root / data)})
        nodes[data] = changed(nodes[data], {"source": source})
    spec = replace(spec, name="by-hand")
    made = go(replace(spec, graph=Graph({id: nodes[id] for id in TUNED}))).committed["transfer/imagenet"].artifact()
    assert isinstance(made, Score)

    files = [root / "real-data/val" / VAL.format(n) for n in range(1, 13)]
    files[0].parent.mkdir(parents=True)
    for file, pixels in zip(files, np.random.default_rng(0).integers(0, 256, (12, 48, 48, 3), np.uint8), strict=True):
        Image.fromarray(pixels).save(file, "JPEG")
    named = answers(made, files, root)
    rights = [
        ([], [one, (one + 7) % 1000], [(one + 1) % 1000], [one], [(one + 3) % 1000])[n % 5]
        for n, one in enumerate(named)
    ]
    write_real(root / "real-data", rights)
    folders = [one if n % 3 else (one + 1) % 1000 for n, one in enumerate(named)]
    write_v2(root / "v2-data", ())
    for n, (file, folder) in enumerate(zip(files, folders, strict=True)):
        shutil.copy(file, root / "v2-data" / V2 / str(folder) / f"{n:02d}.jpeg")
    official(monkeypatch, "imagenet-real", root / "real-data", {"test": 12})
    official(monkeypatch, "imagenet-v2", root / "v2-data", {"test": 12})
    committed = go(replace(spec, graph=Graph(nodes))).committed
    judged = [one in right for one, right in zip(named, rights, strict=True) if right]
    by_rule = {"real": sum(judged) / len(judged), "v2": sum(map(int.__eq__, named, folders)) / 12}
    assert by_rule == {"real": 5 / 9, "v2": 8 / 12}
    assert {id: committed[id].artifact().value for id in by_rule} == pytest.approx(by_rule)


TUNED = ("imagenet", "images", "backbone", "weights", "transfer/imagenet")
SCORED = ("real-data", "real", "v2-data", "v2")


def changed(node: Node, fields: dict[str, Any]) -> Node:
    return replace(node, config=node.config.model_copy(update=fields))


def answers(score: Score, files: list[Path], folder: Path) -> list[int]:
    """The class that the model names for each image of its own size, pixels in [-1, 1]."""
    settings, state = load_weights(score, folder)
    model = build_model(settings).eval()
    model.load_state_dict(state)
    seen = np.stack([np.asarray(Image.open(file)) for file in files])
    with torch.inference_mode():
        return model(torch.from_numpy(seen / 127.5 - 1).float().permute(0, 3, 1, 2)).argmax(dim=1).tolist()


def upstream(graph: Graph, id: str) -> set[str]:
    found = set(graph.upstream(id))
    return found | {up for one in found for up in upstream(graph, one)}
