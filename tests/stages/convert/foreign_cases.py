"""Foreign weights with each oddity that people's files have, and what becomes of them: the cases of a test, and the
rows of a table in the documentation.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from foreign_files import huggingface_folder
from safetensors.torch import load_file, save_file
from tiny_vit import random_state, tiny
from torch import Tensor

from vitpipe.stages.convert.foreign.weights import ForeignWeights

State = dict[str, Tensor]
TIMM = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4, "mlp_ratio": 1.5}
CROPPED = {"size": {"shortest_edge": 36}, "do_center_crop": True, "crop_size": 32}
SIGLIP = "vit_base_patch32_siglip_gap_256"


@dataclass(frozen=True)
class Case:
    """One input; `told` stands in the notes of what is taken, or in the refusal."""

    given: str
    """The input, in the words of the table."""
    told: str
    make: Callable[[Path], Path]
    is_refused: bool = False
    holds: Callable[[ForeignWeights], bool] | None = None
    """What is true of the weights as they were taken, where no note tells it."""
    source: Mapping[str, Any] = field(default_factory=dict)
    """Other fields of `config.source`."""

    @property
    def row(self) -> str:
        return f"| {self.given} | {'refused' if self.is_refused else 'taken'}: {self.told} |"


def huggingface(
    images: Mapping[str, Any] | None = None, classes: int | None = 5, nested: bool = False, **config: Any
) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        huggingface_folder(path, classes, pooler=classes is None, spread=0.3)
        said = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps(said | config))
        if images is not None:
            (path / "preprocessor_config.json").write_text(json.dumps({} if nested else images))
        if nested:
            (path / "processor_config.json").write_text(json.dumps({"image_processor": images}))
        return path

    return make


def of_timm(
    arguments: Mapping[str, Any] | None = None, architecture: str = "vit_base_patch16_224", **said: Any
) -> Callable[[Path], Path]:
    """Arguments that build the model; what is `said` goes into `pretrained_cfg`."""

    def make(path: Path) -> Path:
        torch.manual_seed(0)
        args = {**TIMM, **(arguments or {})}
        theirs = timm.create_model(architecture, num_classes=5, **args)
        with torch.no_grad():
            for parameter in theirs.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.2)
        timm.models.save_for_hf(theirs, path, model_args=args, safe_serialization=True)
        config = json.loads((path / "config.json").read_text())
        config["num_classes"] = said.get("num_classes", 5)
        config["pretrained_cfg"] |= said
        (path / "config.json").write_text(json.dumps(config))
        return path

    return make


def file(of: Callable[[State], State], name: str = "vit.safetensors") -> Callable[[Path], Path]:
    """A file of timm's names, changed."""

    def make(path: Path) -> Path:
        path.mkdir()
        save_file({name: tensor.contiguous() for name, tensor in of(random_state(tiny())).items()}, path / name)
        return path / name

    return make


def below(prefix: str, state: State) -> State:
    return {prefix + name: tensor.clone() for name, tensor in state.items()}


def of_torchvision(path: Path) -> Path:
    path.mkdir()
    torch.manual_seed(0)
    theirs = torchvision.models.VisionTransformer(32, 8, 2, 4, 32, 48, num_classes=5)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    save_file(theirs.state_dict(), path / "vit.safetensors")
    return path / "vit.safetensors"


def with_average(path: Path) -> Path:
    made = file(lambda state: state, "model.safetensors")(path)
    save_file(load_file(made), path / "model_ema.safetensors")
    return path


def spoilt(state: State) -> State:
    state["blocks.1.mlp.fc1.weight"][3, 4] = torch.nan
    return state


def grey(state: State) -> State:
    return state | {"patch_embed.proj.weight": state["patch_embed.proj.weight"][:, :1].clone()}


def part(state: State) -> State:
    return {name: tensor for name, tensor in state.items() if not name.startswith("blocks.1.norm1")}


def headless(state: State) -> State:
    return {name: tensor for name, tensor in state.items() if not name.startswith("head.")}


OF_HUGGINGFACE = (
    Case('`"qkv_bias": false`', "of the models here it is true", huggingface(qkv_bias=False), True),
    Case('`"hidden_act": "gelu_new"`', "with the tanh GELU", huggingface(hidden_act="gelu_new"),
         holds=lambda foreign: foreign.settings.gelu == "tanh"),
    Case('`"hidden_act": "quick_gelu"`', "with OpenAI's GELU", huggingface(hidden_act="quick_gelu"),
         holds=lambda foreign: foreign.settings.gelu == "quick"),
    Case('`"layer_norm_eps": 0.00001`', "with that epsilon", huggingface(layer_norm_eps=1e-5),
         holds=lambda foreign: foreign.settings.norm_eps == 1e-5),
    Case('`"pooler_act": "relu"`, no head', "behind that layer models here have tanh",
         huggingface(classes=None, pooler_act="relu"), True),
    Case('`"pooler_act": "relu"`, a classifier', "a classifier sees no pooler", huggingface(pooler_act="relu"),
         holds=lambda foreign: foreign.settings.representation == "none"),
    Case('`"problem_type": "multi_label_classification"`', "`predict` gives each class by itself",
         huggingface(problem_type="multi_label_classification"), holds=lambda foreign: foreign.sigmoid),
    Case('`"problem_type": "regression"`', "it names no classes", huggingface(problem_type="regression"), True),
    Case("`id2label` from 1", "the first is taken for the head's first row",
         huggingface(id2label={str(number + 1): f"class {number}" for number in range(5)})),
    Case("`id2label` with a gap", "does not say which class is which",
         huggingface(id2label={"0": "a", "7": "b"}), True),
    Case("`id2label` of 3 classes, 5 in the head", "the names are left out",
         huggingface(id2label={"0": "a", "1": "b", "2": "c"}, label2id={})),
    Case('`"image_size": 48`, positions for 32', "images of 48 px are 6 x 6 patches, its position table is of 4 x 4",
         huggingface(image_size=48), True),
    Case('`"model_type": "beit"`', "read are vit, vit_mae, vit_msn, dinov2", huggingface(model_type="beit"), True),
    Case("no file of image processors", "their normalisation is taken as [-1, 1]", huggingface(),
         holds=lambda foreign: foreign.pixels == ((0.5,) * 3, (0.5,) * 3)),
    Case('`"rescale_factor": 0.01`', "folded into the first layer", huggingface({"rescale_factor": 0.01})),
    Case('`"do_normalize": false`', "folded into the first layer", huggingface({"do_normalize": False})),
    Case('`"do_rescale": false`', "it may be for bytes, or for images already scaled",
         huggingface({"do_rescale": False}), True),
    Case('`"do_rescale": false`, `image_mean` of bytes', "for bytes",
         huggingface({"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [127.5] * 3}),
         holds=lambda foreign: foreign.pixels.mean[0] == 0.5),
    Case('`"image_mean": null`', "versions of transformers take in different ways",
         huggingface({"image_mean": None}), True),
    Case("`ConvNextImageProcessor`",
         "read are ViTImageProcessor, DeiTImageProcessor, CLIPImageProcessor, BitImageProcessor",
         huggingface({"image_processor_type": "ConvNextImageProcessor"}), True),
    Case('`"size": {"shortest_edge": 36}`, `"crop_size": 32`', "prepared by resmall_crop from 36 px, bilinear",
         huggingface(CROPPED), holds=lambda foreign: str(foreign.preparation) == "resmall_crop from 36 px, bilinear"),
    Case('`"size": {"shortest_edge": 32}`, no crop', "here they are squashed",
         huggingface({"size": {"shortest_edge": 32}})),
    Case("`processor_config.json` beside `preprocessor_config.json`", "the first is read",
         huggingface({"image_mean": [0.2] * 3}, nested=True), holds=lambda foreign: foreign.pixels.mean == (0.2,) * 3),
)  # fmt: skip
OF_TIMM = (
    Case('`"crop_pct": 0.9`, bicubic', "prepared by resmall_crop from 35 px, bicubic",
         of_timm(crop_pct=0.9, interpolation="bicubic", crop_mode="center"),
         holds=lambda foreign: str(foreign.preparation) == "resmall_crop from 35 px, bicubic"),
    Case('`"crop_mode": "border"`', "they are squashed", of_timm(crop_mode="border")),
    Case('`"act_layer": "gelu_tanh"`', "with the tanh GELU", of_timm({"act_layer": "gelu_tanh"}),
         holds=lambda foreign: foreign.settings.gelu == "tanh"),
    Case(f'`"architecture": "{SIGLIP}"`', "with the tanh GELU, which only the name shows",
         of_timm(architecture=SIGLIP), holds=lambda foreign: foreign.settings.gelu == "tanh"),
    Case('`"qk_norm": true`', "with norms of queries and keys", of_timm({"qk_norm": True}),
         holds=lambda foreign: foreign.settings.qk_norm),
    Case('`"global_pool": "avg"` beside a class token', "pooled by the mean of the patches' tokens",
         of_timm({"global_pool": "avg", "fc_norm": False}),
         holds=lambda foreign: foreign.settings.pool == "gap" and foreign.settings.has_class_token),
    Case('`"norm_layer": "rmsnorm"`', "of the models here it is null", of_timm({"norm_layer": "rmsnorm"}), True),
    Case('`"num_classes": 7`, 5 in the head', "the config beside it says classes 7, its tensors 5",
         of_timm(num_classes=7), True),
    Case('`"label_offset": 1`', "of the models here it is null or 0", of_timm(label_offset=1), True),
)  # fmt: skip
_TWO = file(lambda state: below("model.", state) | below("ema.", state))
OF_TENSORS = (
    Case("torchvision's state dict", "normalised by mean (0.485, 0.456, 0.406)", of_torchvision),
    Case("names below `module.`, `model.`, `_orig_mod.`, ...", "its tensors stand below 'module.'",
         file(lambda state: below("module.", state))),
    Case("names below `visual.trunk.`", "give config.source.prefix: 'visual.trunk.'",
         file(lambda state: below("visual.trunk.", state)), True),
    Case("`model.` and `ema.` in one file", "it holds 2 models, below 'ema.', 'model.'", _TWO, True),
    Case("the same with `prefix: ema.`", "its tensors stand below 'ema.'", _TWO, source={"prefix": "ema."}),
    Case("`model_ema.safetensors` beside `model.safetensors`", "model_ema.safetensors beside it was not taken",
         with_average),
    Case("`decoder.*` and `mask_token` of a MAE", "left out, of its masked pretraining",
         file(lambda state: headless(state) | {"mask_token": torch.ones(16), "decoder_pred.bias": torch.ones(9)})),
    Case("one whole number, such as `n_averaged`", "left out, one whole number each",
         file(lambda state: state | {"n_averaged": torch.tensor(3)})),
    Case('`"in_chans": 1`', "give config.source.in_chans_ok: true", file(grey), True),
    Case("the same with `in_chans_ok: true`", "its first layer takes colours, weighed 0.299, 0.587 and 0.114",
         file(grey), source={"in_chans_ok": True}),
    Case("a number that is none (NaN)",
         "1 of the 1536 numbers in it that become blocks.1.mlp.fc1.weight are not finite", file(spoilt), True),
    Case("whole numbers (int8)", "dequantise it with what made it",
         file(lambda state: {name: tensor.to(torch.int8) for name, tensor in state.items()}), True),
    Case("layer scale in one block alone", "its tensors are not those of the model they seem to be",
         file(lambda state: state | {"blocks.0.ls1.gamma": torch.ones(32)}), True),
    Case("a distillation token", "it has a distillation token, models here have not",
         file(lambda state: state | {"dist_token": torch.ones(1, 1, 32)}), True),
    Case("one shard of two", "name the folder with all of them and their index",
         file(part, "model-00001-of-00002.safetensors"), True),
)  # fmt: skip
TABLES = {"Hugging Face's files": OF_HUGGINGFACE, "timm's `config.json`": OF_TIMM, "Tensors": OF_TENSORS}


def table() -> str:
    """The cases as the documentation has them."""
    lines = []
    for title, cases in TABLES.items():
        lines += [f"| {title} | What becomes of it |", "|---|---|", *(case.row for case in cases), ""]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
