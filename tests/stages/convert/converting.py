"""One conversion in this process, from a committed artifact to a committed one."""

from pathlib import Path
from typing import Any

from inprocess import InProcessCluster, commit, make_context

from vitpipe.stages.artifacts import Artifact, Weights
from vitpipe.stages.contract import Inputs
from vitpipe.stages.convert.config import ConvertConfig, ConvertResources, Format
from vitpipe.stages.convert.run import run

FORMATS: tuple[Format, ...] = ("native", "timm", "huggingface", "torchvision", "google", "google_big_vision", "onnx")


def wanted(*formats: Format, **changes: Any) -> ConvertConfig:
    return ConvertConfig(formats=formats, **changes)


def convert(
    tmp_path: Path, source: Artifact, config: ConvertConfig, node: str = "weights", *, twice: bool = False
) -> Weights:
    """The weights of a `convert` node; `twice` runs every task again, as after a lost answer."""
    ctx = make_context(tmp_path, node, ConvertResources(), InProcessCluster(rerun_tasks=twice))
    done = commit(ctx, run(config, given(source), ctx))
    assert isinstance(done, Weights)
    return done


def given(source: Artifact) -> Inputs:
    return Inputs({"weights" if isinstance(source, Weights) else "checkpoint": (source,)})


def fetched(weights: Weights, folder: Path) -> Path:
    for file in weights.files:
        weights.fetch(file.path, folder)
    return folder


class Earlier:
    """Weights as an earlier version wrote them, whose `source.json` said something else."""

    def __init__(self, weights: Weights, **said: Any) -> None:
        self.weights, self.said, self.commits = weights, said, weights.commits

    def has(self, name: str) -> bool:
        return self.weights.has(name)

    def read_json(self, name: str) -> Any:
        content = self.weights.read_json(name)
        if name == "source.json":
            return {key: value for key, value in (content | self.said).items() if value is not None}
        return {"id2label": content["id2label"]}
