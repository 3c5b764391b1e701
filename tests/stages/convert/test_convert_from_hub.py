"""Weights of the Hub: what is fetched, in one file or in shards, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
from converting import fetched
from foreign_files import huggingface_folder
from hub_server import Hub, tree
from inprocess import commit, make_context
from safetensors.numpy import load_file

from vitpipe.infra.errors import IntegrityError, UsageError
from vitpipe.stages.artifacts import Weights
from vitpipe.stages.contract import Inputs
from vitpipe.stages.convert.config import ConvertConfig, ConvertResources
from vitpipe.stages.convert.estimate import estimate
from vitpipe.stages.convert.run import run
from vitpipe.stages.estimates import Known


def converted(tmp_path: Path, path: str, node: str, **more: Any) -> Weights:
    config = ConvertConfig.model_validate({"source": {"path": path, **more}})
    ctx = make_context(tmp_path, node, ConvertResources())
    made = commit(ctx, run(config, Inputs({}), ctx), stage="convert")
    assert isinstance(made, Weights)
    return made


def tensors(weights: Weights, folder: Path) -> dict[str, Any]:
    return load_file(fetched(weights, folder) / "native/model.safetensors")


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_one_file_shards_a_folder_within_and_a_file_by_name(hub: Hub, tmp_path: Path) -> None:
    huggingface_folder(tmp_path / "one")
    huggingface_folder(tmp_path / "shards", max_shard_size="20KB")
    within = {f"deep/down/{path}": data for path, data in tree(tmp_path / "one").items()}
    hub.add("models", "me/one", {**tree(tmp_path / "one"), **within, "pytorch_model.bin": b"x" * 9_999})
    hub.add("models", "me/shards", tree(tmp_path / "shards"))
    assert len(tree(tmp_path / "shards")) > 4
    here = tensors(converted(tmp_path, str(tmp_path / "one"), "here"), tmp_path / "here")
    for number, path in enumerate(
        (
            "hf://me/one",
            "hf://me/shards",
            "hf://me/one/deep/down",
            "hf://me/one/model.safetensors",
            "hf://models/me/one",
        )
    ):
        there = converted(tmp_path, path, f"there-{number}")
        assert same(tensors(there, tmp_path / f"there-{number}"), here), path
        assert there.read_json("parity.json")["source"]["max_abs_difference"] < 1e-4
        repository = "me/shards" if "shards" in path else "me/one"
        assert list(there.commits) == [f"hf://models/{repository}@main"]
    assert not any("pytorch_model" in asked for asked in hub.asked)


def test_a_model_as_timm_has_it_there(hub: Hub, tmp_path: Path) -> None:
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=3, depth=1)
    timm.models.save_for_hf(model, tmp_path / "timm", safe_serialization=True)
    hub.add("models", "timm/some_vit", tree(tmp_path / "timm"))
    made = converted(tmp_path, "hf://timm/some_vit", "weights", heads=3)
    assert made.read_json("source.json")["format"] == "timm"
    assert np.array_equal(tensors(made, tmp_path / "out")["head.weight"], model.head.weight.detach().numpy())


def test_pickles_alone_and_nothing_at_all_are_told_by_a_plan(hub: Hub) -> None:
    hub.add("models", "me/pickle", {"config.json": b"{}", "pytorch_model.bin": b"x"})
    hub.add("models", "me/empty", {"README.md": b"soon"})
    for path, told in (("hf://me/pickle", "a pickle can run code"), ("hf://me/empty", "no tensors there")):
        config = ConvertConfig.model_validate({"source": {"path": path}})
        with pytest.raises(UsageError, match=told):
            estimate(config, ConvertResources(), {}, Known())
    with pytest.raises(ValueError, match="hf://owner/name"):
        ConvertConfig.model_validate({"source": {"path": "hf://vit"}})


def test_a_publishers_digest_is_held_against_the_file(hub: Hub, tmp_path: Path) -> None:
    huggingface_folder(tmp_path / "one")
    hub.add("models", "me/one", tree(tmp_path / "one"))
    with pytest.raises(IntegrityError, match=r"config\.source\.sha256"):
        converted(tmp_path, "hf://me/one", "weights", sha256="0" * 64)
