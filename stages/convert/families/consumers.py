"""What other families' models answer, loaded by their own libraries' classes. Shapes: B images, T tokens, D width."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from vitpipe.stages.convert.consumers import inputs_of, refuse_overruled, timm_folder
from vitpipe.stages.convert.own_images import transformers_images
from vitpipe.stages.convert.question import Answer, Question, Unavailable, library, quiet_tokens, version

_CLASSES = {
    "dinov2": "Dinov2Model", "dinov2_with_registers": "Dinov2WithRegistersModel", "dinov3_vit": "DINOv3ViTModel",
    "clip": "CLIPVisionModel", "clip_vision_model": "CLIPVisionModel", "siglip": "SiglipVisionModel",
    "siglip_vision_model": "SiglipVisionModel", "ijepa": "IJepaModel",
}  # fmt: skip
_CLASSIFIERS = {"ijepa": "IJepaForImageClassification", "siglip": "SiglipForImageClassification"}


def timm_eva(question: Question) -> Answer:
    """By `timm.create_model('local-dir:DIR')`; a file alone is not enough to build one."""
    if question.config is None or "architecture" not in json.loads(question.config.read_bytes()):
        raise Unavailable("timm builds an Eva by its function, which a file without timm's config.json does not name")
    return timm_folder(question)


def transformers_family(question: Question) -> Answer:
    """By `from_pretrained(DIR)` of the class that the config is of."""
    refuse_overruled(question)
    if question.config is None:
        raise Unavailable("transformers needs a config.json beside the tensors, there is none")
    transformers, kind = library("transformers"), json.loads(question.config.read_bytes()).get("model_type")
    if kind not in _CLASSES:
        raise Unavailable(f"the config.json beside it is of {kind}, its tensors are of another family")
    transformers.utils.logging.disable_progress_bar()
    folder = question.config.parent
    question, prepared = transformers_images(question)
    classes = question.settings.classes
    name = _CLASSIFIERS.get(kind) if classes else _CLASSES[kind]
    if name is None:
        raise Unavailable(f"transformers has no classifier of {kind} that models here could be")
    arguments = {"num_labels": classes} if classes else {}
    model = _loaded(getattr(transformers, name), folder, arguments)
    body = next((getattr(model, part) for part in ("ijepa", "vision_model") if hasattr(model, part)), model)
    outputs: dict[str, Tensor] = {}
    if classes:
        with inputs_of(model.classifier) as seen:
            outputs["logits"] = model(question.images).logits
        outputs |= {"pooled": seen[0], "features": seen[0]}
    else:
        answer = model(question.images)
        pooled = answer.last_hidden_state.mean(dim=1) if kind == "ijepa" else answer.pooler_output
        outputs |= {"pooled": pooled, "features": pooled}
    outputs["encoded"] = _encoded(body, question)
    return version(transformers), {**outputs, **prepared}


def _loaded(kind: Any, folder: Path, arguments: dict[str, Any]) -> Any:
    """The model with all of its weights from the folder. Unavailable where the class would draw some by itself."""
    given = {"local_files_only": True, "dtype": "float32", "output_loading_info": True, **arguments}
    logging = library("transformers.utils.logging")
    usual = logging.get_verbosity()
    logging.set_verbosity_error()  # it would list the tensors of a text's tower as unexpected
    try:
        model, info = kind.from_pretrained(folder, **given)
    finally:
        logging.set_verbosity(usual)
    if drawn := sorted(name for name in info["missing_keys"] if not name.endswith("mask_token")):
        raise Unavailable(f"transformers would draw {', '.join(drawn[:3])} by itself: the files do not hold them")
    return model.eval()


def _encoded(body: Any, question: Question) -> Tensor:
    """The encoder's answer to quiet tokens, which stand in the place of the embedded ones."""
    quiet = quiet_tokens(question.settings)
    at = getattr(body, "pre_layrnorm", body.embeddings)
    handle = at.register_forward_hook(lambda module, given, made: quiet)
    try:
        encoded: Tensor = body(question.images[:1]).last_hidden_state
    finally:
        handle.remove()
    return body.post_layernorm(encoded) if hasattr(body, "pre_layrnorm") else encoded
