"""Folders of transformers and timm whose configs say something else than they were written with."""

import json
from pathlib import Path
from typing import Any

from inprocess import make_context

from vitpipe.stages.convert.config import ConvertResources, ForeignSource
from vitpipe.stages.convert.foreign.weights import ForeignWeights, look
from vitpipe.stages.convert.parity import prove
from vitpipe.stages.convert.task import ProveTask

TIMM = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4, "mlp_ratio": 1.5}


def said(folder: Path, to: Path, images: dict[str, Any] | None = None, **config: Any) -> Path:
    """A copy of the folder, by links, whose configs say something else."""
    to.mkdir()
    (to / "model.safetensors").symlink_to(folder / "model.safetensors")
    given = json.loads((folder / "config.json").read_text())
    for name, value in config.items():
        inner = given[name] if isinstance(value, dict) and name in ("model_args", "pretrained_cfg") else None
        given[name] = {**inner, **value} if inner is not None else value
    (to / "config.json").write_text(json.dumps(given))
    if images is not None:
        (to / "preprocessor_config.json").write_text(json.dumps(images))
    return to


def looked(tmp_path: Path, path: Path, **given: Any) -> ForeignWeights:
    return look(ForeignSource.model_validate({"path": str(path), **given}), tmp_path / "scratch")


def proof(tmp_path: Path, foreign: ForeignWeights) -> dict[str, Any]:
    return prove(ProveTask(foreign, make_context(tmp_path, "proof", ConvertResources()).task))
