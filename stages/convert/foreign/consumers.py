"""Other libraries' models with the weights of a foreign file, loaded by their own loaders.

None of them is needed for an import, only for its proof; each is imported where it is asked for.
"""

from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vitpipe.stages.convert.foreign.weights import Foreign
from vitpipe.stages.convert.timm_config import timm_architecture, timm_arguments, timm_problems

Seen = dict[str, Tensor]
"""What is compared: `pooled` (B, D), `logits` (B, K) of a model with a head, and `encoded`, the encoder's answer to
quiet tokens (1, T, D), where another LayerNorm epsilon shows."""
Consumer = tuple[str, Callable[[Tensor, Tensor | None], Seen]]
"""The library's name and version, and its model: images as it takes them, and the tokens, to what it sees."""
Paths = Mapping[str, Path]


class Unavailable(Exception):
    """No library can be asked; says why."""


def native(foreign: Foreign, paths: Paths) -> Consumer:
    raise Unavailable("native files are read as they stand, by no other library")


def huggingface(foreign: Foreign, paths: Paths) -> Consumer:
    """transformers reads the folder."""
    _refuse_overruled(foreign)
    if "config.json" not in paths:
        raise Unavailable("transformers needs a config.json beside the tensors, there is none")
    transformers = _library("transformers")
    folder, arguments = str(paths["config.json"].parent), {"local_files_only": True, "dtype": "float32"}
    if foreign.settings.classes:
        model = transformers.ViTForImageClassification.from_pretrained(folder, **arguments).eval()
        return _named(transformers), partial(_see_transformers, model.vit, model.classifier)
    bare = transformers.ViTModel.from_pretrained(folder, add_pooling_layer=False, **arguments).eval()
    return _named(transformers), partial(_see_transformers, bare, None)


def _see_transformers(model: Any, head: nn.Module | None, images: Tensor, tokens: Tensor | None) -> Seen:
    pooled = model(images).last_hidden_state[:, 0]
    for layer in model.layers:
        tokens = layer(tokens)
    seen = {"pooled": pooled, "encoded": model.layernorm(tokens)}
    return seen if head is None else seen | {"logits": head(pooled)}


def torchvision(foreign: Foreign, paths: Paths) -> Consumer:
    """torchvision's VisionTransformer takes the state dict."""
    library, files, torchvision = _library("torchvision.models"), _library("safetensors.torch"), _library("torchvision")
    settings, sizes = foreign.settings, foreign.settings.sizes
    if not settings.classes:
        raise Unavailable("torchvision has no model without a head")
    model = library.VisionTransformer(
        image_size=settings.grid * sizes.patch_px, patch_size=sizes.patch_px, num_layers=sizes.layers,
        num_heads=sizes.heads, hidden_dim=sizes.width, mlp_dim=sizes.mlp, num_classes=settings.classes,
        representation_size=None if settings.representation == "none" else settings.feature_width,
        norm_layer=partial(nn.LayerNorm, eps=settings.norm_eps),
    ).eval()  # fmt: skip
    state = [files.load_file(paths[name]) for name in foreign.located.tensors]
    model.load_state_dict({name: tensor.float() for part in state for name, tensor in part.items()})

    def see(images: Tensor, tokens: Tensor | None) -> Seen:
        pooled: list[Tensor] = []
        with_hook = model.heads.register_forward_pre_hook(lambda module, inputs: pooled.append(inputs[0]))
        logits = model(images)
        with_hook.remove()
        return {"pooled": pooled[0], "logits": logits, "encoded": model.encoder.ln(model.encoder.layers(tokens))}

    return _named(torchvision), see


def timm_safetensors(foreign: Foreign, paths: Paths) -> Consumer:
    """timm reads the folder where it has a config, else the file into the architecture that was recognised."""
    timm = _library("timm")
    if "config.json" in paths:
        _refuse_overruled(foreign)
        model = timm.create_model(f"local-dir:{paths['config.json'].parent}", pretrained=True)
    else:
        model = _timm_model(foreign)
        _library("timm.models").load_checkpoint(model, str(paths[foreign.located.tensors[0]]))
    return _named(timm), partial(_see_timm, model.float().eval())


def timm_npz(foreign: Foreign, paths: Paths) -> Consumer:
    """timm's own reader of Google's files. It drops a representation layer, and the head behind one."""
    model, path = _timm_model(foreign).eval(), str(paths[foreign.located.tensors[0]])
    if foreign.all_bf16:
        _load_bf16(model, path)
    else:
        model.load_pretrained(path)
    return _named(_library("timm")), partial(_see_timm, model)


def _load_bf16(model: Any, path: str) -> None:
    try:
        _library("timm.models.vision_transformer")._load_weights(model, path, load_bfloat16=True)
    except ImportError as error:
        raise Unavailable(f"timm reads bf16 arrays through {error.name}, which is not installed") from error


def _timm_model(foreign: Foreign) -> Any:
    """Of the recognised sizes; the epsilon and the class token's place in the position table are set as they are."""
    settings = foreign.settings
    if settings.representation != "none":
        settings = settings.model_copy(update={"representation": "none", "classes": 0})
    if settings.family == "resnet" and timm_problems(settings):
        raise Unavailable(f"timm has no function for {settings.variant}")
    arguments = timm_arguments(settings)
    if settings.family != "resnet":
        arguments["norm_layer"] = partial(nn.LayerNorm, eps=settings.norm_eps)
        arguments["no_embed_class"] = foreign.format == "google_big_vision" and settings.pool == "cls"
    return _library("timm").create_model(timm_architecture(settings), num_classes=settings.classes, **arguments)


def _see_timm(model: Any, images: Tensor, tokens: Tensor | None) -> Seen:
    features = model.forward_features(images)
    seen = {"pooled": model.forward_head(features, pre_logits=True)}
    seen |= {"logits": model.forward_head(features)} if model.num_classes else {}
    return seen if tokens is None else seen | {"encoded": model.norm(model.blocks(tokens))}


def _refuse_overruled(foreign: Foreign) -> None:
    if foreign.is_overruled:
        raise Unavailable("config.source asks for another GELU or epsilon than the library reads from its config")


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise Unavailable(f"{name.split('.')[0]} is not installed: pip install 'vitpipe[parity]'") from error


def _named(library: Any) -> str:
    return f"{library.__name__} {library.__version__}"
