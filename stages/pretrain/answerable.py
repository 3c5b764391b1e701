"""Whether a model and its images can give what the objective asks for: a head to name classes, or patches. No torch."""

from vitpipe.stages.images.config import AugmentSettings
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.training.config import ObjectiveSettings

_OF_MAE = (
    "variant", "image_px", "classes", "representation", "pool", "position", "dropout", "stochastic_depth", "gelu",
    "norm_eps", "kept_branches",
)  # fmt: skip
"""Settings of a model that the encoder on visible patches knows of; another one would be dropped in silence."""


def unanswerable(model: ModelSettings, objective: ObjectiveSettings, augment: AugmentSettings) -> list[str]:
    """What is wrong between the three, one sentence each; asked by `validate`."""
    kind, wrong = objective.kind, []
    if objective.labelled:
        needs = f"objective {kind} needs classes: leave model.classes out, or raise it"
        return [needs] if model.classes == 0 else []
    if model.family != "vit":
        does = "corrupts" if kind == "masked_patch" else "hides"
        return [f"objective {kind} {does} image patches, which a {model.family} has not: choose a plain ViT"]
    if model.grid < 2:
        wrong.append(f"{kind} needs patches to tell others by, {model.image_px} px hold one of them")
    if model.classes:
        wrong.append(f"{kind} names no classes: leave model.classes {model.classes} out")
    if model.pool == "map" or model.representation != "none":
        wrong.append(f"{kind} trains the encoder alone: choose pool cls or gap, and representation none")
    if augment.mixes:
        wrong.append(f"{kind} has no labels to mix: leave augment.mixup and augment.cutmix at 0")
    if kind == "mae":
        return wrong + _hidden(model, objective)
    if objective.target == "rgb_4x4_3bit" and model.sizes.patch_px % 4:
        wrong.append(f"rgb_4x4_3bit cuts a patch in 4 x 4 parts, {model.sizes.patch_px} px do not divide by 4")
    return wrong


def _hidden(model: ModelSettings, objective: ObjectiveSettings) -> list[str]:
    """What keeps mae from hiding patches of that model's images."""
    image_px, patch_px, width, wrong = model.image_px, model.sizes.patch_px, model.sizes.width, []
    if rest := image_px % patch_px:
        division = f"{image_px} = {image_px // patch_px} x {patch_px} + {rest}; set image_px to {image_px - rest}"
        wrong.append(f"mae rebuilds the whole image, patches of {patch_px} px leave some of it out: {division}")
    patches = model.grid**2
    visible = objective.visible(patches)
    if patches > 1 and not 0 < visible < patches:
        counted = f"int({patches} x (1 - {objective.mask_ratio:g})) = {visible}"
        side = "lower" if visible < 1 else "raise"
        left = "none visible" if visible < 1 else "none to rebuild"
        wrong.append(f"mask_ratio {objective.mask_ratio:g} leaves {left} of {patches} patches, {counted}: {side} it")
    if model.position not in ("learned1d", "sincos2d"):
        choice = "leave model.position out for the authors' fixed table, or choose sincos2d, big_vision's"
        wrong.append(f"mae has no model.position {model.position}: its places are fixed; {choice}")
    elif width % 4:
        wrong.append(f"mae's fixed positions need a width that is a multiple of 4, not {width}")
    defaults = type(model).model_fields
    others = [name for name in defaults if name not in _OF_MAE and getattr(model, name) != defaults[name].default]
    wrong += [f"mae has no model.{name}: leave it out" for name in others]
    return wrong
