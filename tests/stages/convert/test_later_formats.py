"""Later parts on the way out: timm and ONNX compute what our model does; formats of plain models refuse them."""

from pathlib import Path
from typing import Any

import pytest
from converting import FORMATS, convert, wanted
from tiny_checkpoint import commit_checkpoint
from tiny_vit import tiny

from vitpipe.stages.convert.formats.common import format_of


@pytest.mark.parametrize(("changes", "formats"), [
    ({"registers": 3, "layer_scale": 1e-5, "no_embed_class": True, "qk_norm": True, "mlp_norm": True}, ("timm",)),
    ({"pre_norm": True, "norm_eps": 1e-5, "gelu": "quick"}, ("timm",)),
    ({"mlp_kind": "swiglu", "registers": 2, "pool": "gap", "class_token": True, "pool_norm": True}, ("timm",)),
    ({"position": "learned2d", "registers": 2, "pre_norm": True}, ("timm",)),
    ({"pool": "map", "registers": 2}, ("timm",)),
    ({"pool": "map", "class_token": True, "qk_norm": True}, ("timm",)),
    ({"rope": {"kind": "dinov3"}, "position": "none", "registers": 2, "layer_scale": 0.1}, ("onnx",)),
])  # fmt: skip
def test_what_holds_them_is_proved(tmp_path: Path, changes: dict[str, Any], formats: Any) -> None:
    settings = tiny(**changes)
    proofs = convert(tmp_path, commit_checkpoint(tmp_path, settings), wanted("native", *formats)).read_json(
        "parity.json"
    )
    for name in formats:
        assert proofs[name]["error"] < 1e-5 and "logits" in proofs[name]["compared"], name


@pytest.mark.parametrize("changes", [{"registers": 4}, {"layer_scale": 1e-5}, {"rope": {"kind": "eva02"}},
                                     {"mlp_kind": "swiglu"}, {"gelu": "quick"}, {"pre_norm": True}])  # fmt: skip
def test_formats_of_plain_models_refuse_them_by_name(changes: dict[str, Any]) -> None:
    (name,) = changes
    refusing = {each: " ".join(format_of(each).limits(tiny(**changes))) for each in FORMATS}
    words = "quick GELU" if name == "gelu" else name
    assert all(words in refusing[each] for each in ("huggingface", "torchvision", "google", "google_big_vision"))
    assert bool(refusing["timm"]) == (name == "rope") and not refusing["native"] + refusing["onnx"]
