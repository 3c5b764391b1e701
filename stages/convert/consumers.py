"""The answers of timm, transformers and torchvision to a written folder, each loaded as its users load it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vitpipe.stages.convert.described import FILES
from vitpipe.stages.convert.formats.common import TORCHVISION
from vitpipe.stages.convert.formats.torchvision import MEAN, STD
from vitpipe.stages.convert.own_model import Absent, Given, Outputs


def timm_outputs(given: Given) -> tuple[str, Outputs]:
    """By `timm.create_model('local-dir:DIR')`."""
    try:
        import timm  # part of the extra `parity`: an export needs no timm, only its proof does
    except ImportError as error:
        raise Absent("timm") from error
    model = timm.create_model(f"local-dir:{given.folder}", pretrained=True).eval().float()
    return f"timm {timm.__version__}", see_timm(model, given)


def see_timm(model: Any, given: Given) -> Outputs:
    """All outputs of a timm model."""
    seen = model.forward_features(given.scaled)
    outputs = {"logits": model.forward_head(seen), "features": model.forward_head(seen, pre_logits=True)}
    if given.settings.family != "resnet":
        outputs["encoded"] = model.norm(model.blocks(given.tokens()))
    return outputs


def transformers_outputs(given: Given) -> tuple[str, Outputs]:
    """By `ViTForImageClassification.from_pretrained(DIR)`."""
    try:
        import transformers  # part of the extra `parity`; slow to import
    except ImportError as error:
        raise Absent("transformers") from error
    with _no_progress_bar(transformers.utils.logging):
        model = transformers.ViTForImageClassification.from_pretrained(given.folder, local_files_only=True)
    model = model.eval().float()
    with _inputs_of(model.classifier) as features:
        logits = model(given.scaled).logits
    tokens_BTD = given.tokens()
    for layer in model.vit.layers:
        tokens_BTD = layer(tokens_BTD)
    encoded = model.vit.layernorm(tokens_BTD)
    library = f"transformers {transformers.__version__}"
    return library, {"logits": logits, "features": features[0], "encoded": encoded}


def torchvision_outputs(given: Given) -> tuple[str, Outputs]:
    """By `load_state_dict` of the function's model, fed as torchvision's presets feed it."""
    import torchvision  # here for the proof alone
    from safetensors.torch import load_file

    settings = given.settings
    with torch.device("meta"):
        model = getattr(torchvision.models, TORCHVISION[settings.sizes])(
            num_classes=settings.classes,
            image_size=settings.image_px,
            representation_size=None if settings.representation == "none" else settings.feature_width,
        )
    model.load_state_dict(load_file(given.folder / FILES["torchvision"]), assign=True)
    model = model.eval().float()
    mean, std = (torch.tensor(three)[:, None, None] for three in (MEAN, STD))
    with _inputs_of(model.heads.head) as features:
        logits = model((given.images / 255 - mean) / std)
    encoded = model.encoder.ln(model.encoder.layers(given.tokens()))
    library = f"torchvision {torchvision.__version__}"
    return library, {"logits": logits, "features": features[0], "encoded": encoded}


@contextmanager
def _inputs_of(head: nn.Module) -> Iterator[list[Tensor]]:
    """What enters a head while it is used."""
    seen: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    try:
        yield seen
    finally:
        handle.remove()


@contextmanager
def _no_progress_bar(logging: Any) -> Iterator[None]:
    """transformers draws one for every model it loads, into logs too."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
