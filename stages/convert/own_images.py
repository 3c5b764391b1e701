"""The way of an image in other libraries, by their own code and the files beside weights: bytes to what their models
take, and an image of any size to the model's.

Both are asked apart: resizing rounds to bytes, by which two libraries may differ; what becomes of bytes may not differ.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vitpipe.stages.convert.question import Outputs, Question, library

_Prepared = tuple[Question, Outputs]
"""The question with the library's own images, and the photo as it prepares it where one is given."""


def transformers_images(question: Question) -> _Prepared:
    """By `AutoImageProcessor.from_pretrained(DIR)`."""
    if question.config is None or (question.pixels is None and question.photo is None):
        return question, {}
    transformers = library("transformers")
    process: Any = transformers.AutoImageProcessor.from_pretrained(question.config.parent, local_files_only=True)

    def given(image_CHW: Tensor, **changed: bool) -> Tensor:
        seen: Tensor = process(
            [image_CHW], input_data_format="channels_first", return_tensors="pt", **changed
        ).pixel_values[0]
        return seen

    prepared: Mapping[str, Tensor] = {}
    if question.photo is not None:
        prepared = {"prepared": given(question.photo, do_rescale=False, do_normalize=False)}
    if question.pixels is None:
        return question, prepared
    rows = [given(image_CHW, do_resize=False, do_center_crop=False) for image_CHW in question.pixels]
    return replace(question, images=torch.stack(rows).float()), prepared


def timm_images(question: Question, model: Any) -> _Prepared:
    """By `timm.data.create_transform` of what the model's config says."""
    if question.pixels is None and question.photo is None:
        return question, {}
    data, to_image = library("timm.data"), library("torchvision.transforms.functional").to_pil_image
    side = question.settings.image_px  # of the model that is asked, which takes no other
    said = {**data.resolve_model_data_config(model), "input_size": (3, side, side)}
    prepared: Mapping[str, Tensor] = {}
    if question.photo is not None:
        prepared = {"prepared": data.create_transform(**said, normalize=False)(to_image(question.photo))}
    if question.pixels is None:
        return question, prepared
    transform = data.create_transform(**{**said, "crop_pct": 1.0, "crop_mode": "squash", "interpolation": "bilinear"})
    rows = [transform(to_image(image_CHW)) for image_CHW in question.pixels]
    return replace(question, images=torch.stack(rows)), prepared


def torchvision_images(question: Question) -> Question:
    """By the preset that all of its classifiers have, whose constants are its own."""
    if question.pixels is None:
        return question
    side = question.pixels.shape[-1]
    preset: Any = library("torchvision.transforms._presets").ImageClassification(crop_size=side, resize_size=side)
    return replace(question, images=preset(question.pixels))
