"""Name and shape of every parameter of a model, from its settings alone. No torch.

The order is that of the modules in `model.py`, `hybrid.py` and `resnet.py`; a test compares every family.
"""

import difflib
from collections.abc import Iterator, Mapping

from vitpipe.infra.errors import UsageError
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.variants import BASE_WIDTH

Shape = tuple[int, ...]
Named = Iterator[tuple[str, Shape]]


def parameter_shapes(settings: ModelSettings) -> dict[str, Shape]:
    """List every parameter in the model's order. UsageError when `classes` is not set."""
    if settings.classes is None:
        found = "its settings name no number of classes"
        raise UsageError("list the parameters of a model", found, "set model.classes")
    return dict(_vit(settings, settings.classes) if settings.resnet is None else _resnet(settings, settings.classes))


def difference(found: Mapping[str, Shape], wanted: Mapping[str, Shape]) -> list[str]:
    """Say how two sets of named shapes differ: `-` wanted and absent, `+` found and unknown, `!` another shape."""
    missing, unknown = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    lines = [f"- {name} {_text(wanted[name])}{_nearest(name, unknown)}" for name in missing]
    lines += [f"+ {name} {_text(found[name])}" for name in unknown]
    both = [name for name in wanted if name in found and wanted[name] != found[name]]
    return lines + [f"! {name} is {_text(found[name])}, the model has {_text(wanted[name])}" for name in both]


def _vit(settings: ModelSettings, classes: int) -> Named:
    width, grid, patch = settings.sizes.width, settings.grid, settings.sizes.patch_px
    if settings.has_class_token:
        yield "cls_token", (1, 1, width)
    if settings.registers:
        yield "reg_token", (1, settings.registers, width)
    if settings.position == "learned1d":
        yield "pos_embed", (1, settings.position_rows, width)
    elif settings.position == "learned2d":
        yield "pos_embed_x", (grid, width // 2)
        yield "pos_embed_y", (grid, width - width // 2)
    if settings.stem is not None:
        yield from _stem("patch_embed.backbone", settings.stem)
    yield "patch_embed.proj.weight", (width, settings.numbers.patch_channels, patch, patch)
    yield "patch_embed.proj.bias", (width,)
    if settings.pre_norm:
        yield from _norm("norm_pre", width)
    for layer in range(settings.sizes.layers):
        yield from _block(f"blocks.{layer}", settings)
    yield from _norm("fc_norm" if settings.pool_norm else "norm", width)
    if settings.pool == "map":
        yield from _attention_pool("attn_pool", settings)
    if settings.representation != "none":
        yield from _dense("pre_logits", width, settings.feature_width)
    if classes:
        yield from _dense("head", settings.feature_width, classes)


def _block(name: str, settings: ModelSettings) -> Named:
    width, head = settings.sizes.width, settings.sizes.width // settings.sizes.heads
    yield from _norm(f"{name}.norm1", width)
    if settings.position == "relative":
        yield f"{name}.attn.relative", (2 * settings.tokens - 1, head)
    yield from _dense(f"{name}.attn.qkv", width, 3 * width)
    if settings.qk_norm:
        yield from _norm(f"{name}.attn.q_norm", head)
        yield from _norm(f"{name}.attn.k_norm", head)
    yield from _dense(f"{name}.attn.proj", width, width)
    if settings.layer_scale is not None:
        yield f"{name}.ls1.gamma", (width,)
    yield from _norm(f"{name}.norm2", width)
    yield from _mlp(f"{name}.mlp", settings, settings.mlp_kind, settings.mlp_norm)
    if settings.layer_scale is not None:
        yield f"{name}.ls2.gamma", (width,)


def _attention_pool(name: str, settings: ModelSettings) -> Named:
    width = settings.sizes.width
    yield f"{name}.latent", (1, 1, width)
    yield from _dense(f"{name}.q", width, width)
    yield from _dense(f"{name}.kv", width, 2 * width)
    yield from _dense(f"{name}.proj", width, width)
    yield from _norm(f"{name}.norm", width)
    yield from _mlp(f"{name}.mlp", settings)


def _mlp(name: str, settings: ModelSettings, kind: str = "gelu", has_norm: bool = False) -> Named:
    width, hidden = settings.sizes.width, settings.sizes.mlp
    yield from _dense(f"{name}.fc1", width, 2 * hidden if kind == "swiglu" else hidden)
    if has_norm:
        yield from _norm(f"{name}.norm", hidden)
    yield from _dense(f"{name}.fc2", hidden, width)


def _stem(name: str, stages: tuple[int, ...]) -> Named:
    root = f"{name}.stem" if stages else name
    yield f"{root}.conv.weight", (BASE_WIDTH, 3, 7, 7)
    yield from _norm(f"{root}.norm", BASE_WIDTH)
    yield from _stages(f"{name}.stages", BASE_WIDTH, stages, preact=False)


def _resnet(settings: ModelSettings, classes: int) -> Named:
    assert settings.resnet is not None
    channels = BASE_WIDTH * settings.resnet.width_factor
    yield "stem.conv.weight", (channels, 3, 7, 7)
    yield from _stages("stages", channels, settings.resnet.blocks, preact=True)
    yield from _norm("norm", settings.feature_width)
    yield from _dense("head", settings.feature_width, classes)


def _stages(name: str, channels: int, stages: tuple[int, ...], preact: bool) -> Named:
    base = channels
    for stage, units in enumerate(stages):
        narrow = base << stage
        for unit in range(units):
            yield from _unit(f"{name}.{stage}.blocks.{unit}", channels, narrow, preact, first=unit == 0)
            channels = 4 * narrow


def _unit(name: str, channels: int, narrow: int, preact: bool, first: bool) -> Named:
    """A pre-activation unit normalises the input of each convolution, a post-activation one its output."""
    out = 4 * narrow
    if first:
        yield f"{name}.downsample.conv.weight", (out, channels, 1, 1)
        if not preact:
            yield from _norm(f"{name}.downsample.norm", out)
    for number, (inside, after, kernel) in enumerate(
        ((channels, narrow, 1), (narrow, narrow, 3), (narrow, out, 1)), start=1
    ):
        if preact:
            yield from _norm(f"{name}.norm{number}", inside)
        yield f"{name}.conv{number}.weight", (after, inside, kernel, kernel)
        if not preact:
            yield from _norm(f"{name}.norm{number}", after)


def _dense(name: str, inside: int, out: int) -> Named:
    yield f"{name}.weight", (out, inside)
    yield f"{name}.bias", (out,)


def _norm(name: str, width: int) -> Named:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _nearest(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.7)
    return f" (found instead: {near[0]})" if near else ""


def _text(shape: Shape) -> str:
    return "(" + ", ".join(map(str, shape)) + ")"
