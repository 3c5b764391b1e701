"""What each of timm's functions of Vision Transformers builds its model with, asked of timm; writes the table of it
that conversions read: `PYTHONPATH=. python tests/stages/convert/timm_functions.py`."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import timm

TABLE = Path(__file__).parents[3] / "stages/convert/formats/timm_functions.json"
MAKERS = {
    timm.models.vision_transformer: "_create_vision_transformer",
    timm.models.deit: "_create_deit",
    timm.models.eva: "_create_eva",
}
_NOWHERE = {"pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir", "dynamic_img_size"}


def chosen_by_timm() -> dict[str, dict[str, Any]]:
    """Arguments by function, without building a model."""
    chosen: dict[str, dict[str, Any]] = {}
    for module, maker in MAKERS.items():
        own = getattr(module, maker)
        kind = module.__name__.rpartition(".")[2]
        setattr(module, maker, lambda name, kind=kind, **given: chosen.update({name: {"kind": kind, **said(given)}}))
        try:
            for name in timm.list_models(module=kind):
                timm.models.model_entrypoint(name)()
        finally:
            setattr(module, maker, own)
    return dict(sorted(chosen.items()))


def said(given: dict[str, Any]) -> dict[str, Any]:
    """Arguments as JSON: layers by their names, a norm by its epsilon too."""
    found: dict[str, Any] = {}
    for name, value in given.items():
        if name in _NOWHERE:
            continue
        layer = value.func if isinstance(value, partial) else value
        if name == "norm_layer" and isinstance(value, partial):
            found["norm_eps"] = value.keywords["eps"]
        if name == "norm_layer" and getattr(layer, "__name__", "") == "LayerNorm":
            continue
        if name == "mlp_layer" and value is timm.layers.SwiGLUPacked:
            found[name] = "SwiGLUPacked"
        elif isinstance(layer, type):
            found[name] = layer.__name__.lower() if name == "act_layer" else layer.__name__
        else:
            found[name] = list(value) if isinstance(value, tuple) else value
    return found


if __name__ == "__main__":
    rows = (f" {json.dumps(name)}: {json.dumps(given)}" for name, given in chosen_by_timm().items())
    TABLE.write_text("{\n" + ",\n".join(rows) + "\n}\n")
