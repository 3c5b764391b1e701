"""What stands beside each format's tensors: settings, labels, preprocessing, licence and lineage. No torch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vitpipe.stages.convert.config import Format
from vitpipe.stages.convert.formats.common import TORCHVISION
from vitpipe.stages.convert.formats.huggingface import huggingface_config, model_card, preprocessor_config
from vitpipe.stages.convert.lineage import lineage_of
from vitpipe.stages.convert.task import WriteTask
from vitpipe.stages.convert.timm_config import timm_architecture, timm_config
from vitpipe.stages.vit.config import ModelSettings

SAFETENSORS, NPZ, ONNX = "model.safetensors", "model.npz", "model.onnx"
FILES: Mapping[Format, str] = {
    "native": SAFETENSORS, "timm": SAFETENSORS, "huggingface": SAFETENSORS, "torchvision": SAFETENSORS,
    "google": NPZ, "google_big_vision": NPZ, "onnx": ONNX,
}  # fmt: skip
"""Name of each format's file of tensors, in the folder of the format's name."""


@dataclass(frozen=True)
class About:
    """What is said of the weights."""

    settings: ModelSettings
    labels: tuple[str, ...] = ()
    """Class names in the order of the head's rows; empty where the source has none."""
    license: str | None = None
    lineage: Mapping[str, str] = field(default_factory=dict)
    dtype: str = "fp32"
    sigmoid: bool = False
    """Whether probabilities are the sigmoid of each logit, instead of the softmax of all."""

    @property
    def activation(self) -> str:
        return "sigmoid" if self.sigmoid else "softmax"


def about_of(task: WriteTask, settings: ModelSettings) -> About:
    """What a writing task says."""
    config = task.config
    return About(settings, task.labels, config.license, lineage_of(task.source), config.dtype, task.sigmoid)


def companions(name: Format, about: About) -> dict[str, bytes]:
    """The small files of a format's folder, by their names in it; a native folder's is `stages.vit.native`'s."""
    settings, labels = about.settings, about.labels
    if name == "timm":
        said = {**about.lineage, "probabilities": about.activation}
        return {"config.json": timm_config(settings, labels, about.license, said)}
    if name == "huggingface":
        return {
            "config.json": huggingface_config(settings, labels, about.dtype, about.sigmoid),
            "preprocessor_config.json": preprocessor_config(settings),
            "README.md": model_card(settings, about.lineage, about.license),
        }
    return {}


def header(name: Format, about: About) -> dict[str, str]:
    """What the file itself says in its metadata, for formats that have a place for it."""
    if name == "native":
        return {"format": "pt"}
    settings, said = about.settings, {"format": "pt"}
    if name == "timm":
        said["architecture"] = timm_architecture(settings)
    elif name == "torchvision":
        said |= _torchvision(settings, about.labels) | {"probabilities": about.activation}
    elif name == "onnx":
        said = _onnx(settings, about.labels) | {"probabilities": about.activation}
    said |= {"license": about.license} if about.license else {}
    return said | ({"lineage": _text(about.lineage)} if about.lineage else {})


def _torchvision(settings: ModelSettings, labels: tuple[str, ...]) -> dict[str, str]:
    function = TORCHVISION.get(settings.sizes, "VisionTransformer")
    args: dict[str, Any] = {"num_classes": settings.classes, "image_size": settings.image_px}
    if settings.representation != "none":
        args["representation_size"] = settings.feature_width
    call = ", ".join(f"{key}={value}" for key, value in args.items())
    return {
        "architecture": function,
        "load": f"torchvision.models.{function}({call}).load_state_dict(safetensors.torch.load_file(...))",
        "normalisation": "ImageNet's mean and std, folded into conv_proj: feed what torchvision's own presets give",
    } | _labels(labels)


def _onnx(settings: ModelSettings, labels: tuple[str, ...]) -> dict[str, str]:
    side = settings.image_px
    return {
        "input": f"images: float (batch, 3, {side}, {side}), RGB in [-1, 1]",
        "output": "logits: float (batch, classes)",
        "preprocessing": _text({"resize": "squash", "interpolation": "bilinear", "mean": [0.5] * 3, "std": [0.5] * 3}),
        "model": settings.model_dump_json(),
    } | _labels(labels)


def _labels(labels: tuple[str, ...]) -> dict[str, str]:
    return {"id2label": _text({str(number): label for number, label in enumerate(labels)})} if labels else {}


def _text(content: Mapping[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False)
