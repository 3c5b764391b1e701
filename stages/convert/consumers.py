"""What other libraries' models answer, loaded by their own loaders from files that we wrote and from those of others.

No library is needed to convert, only to prove; each is imported where it is asked. Shapes: B images, T tokens, D width.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vitpipe.infra.npz import loaded
from vitpipe.stages.convert.formats.timm import timm_architecture, timm_arguments, timm_limits
from vitpipe.stages.convert.formats.torchvision import FUNCTIONS
from vitpipe.stages.convert.numbers import widened
from vitpipe.stages.convert.own_images import timm_images, torchvision_images, transformers_images
from vitpipe.stages.convert.question import Answer, Outputs, Question, Unavailable, library, quiet_tokens, version
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.vit.sincos import sincos_2d


def timm_folder(question: Question) -> Answer:
    """By `timm.create_model('local-dir:DIR')`; without a config, the file into the architecture that was recognised."""
    timm = library("timm")
    prepared: Outputs = {}
    if question.config and "architecture" in json.loads(question.config.read_bytes()):  # not another library's
        refuse_overruled(question)
        model = timm.create_model(f"local-dir:{question.config.parent}", pretrained=True)
        question, prepared = timm_images(question, model)
    else:
        model = _timm_model(question)
        library("timm.models").load_checkpoint(model, str(question.tensors[0]))
    return version(timm), {**_timm_outputs(model, question), **prepared}


def timm_npz(question: Question) -> Answer:
    """timm's own reader of vision_transformer's files."""
    return _npz_outputs(question, _timm_model(question))


def big_vision_npz(question: Question) -> Answer:
    """timm's own reader of big_vision's files, whose position table has no row for the class token."""
    settings = question.settings
    if settings.position == "sincos2d":
        question = replace(question, tensors=(_with_sines(question.tensors[0], settings),), all_bf16=False)
    model = _timm_model(question, no_embed_class=settings.pool == "cls")
    return _npz_outputs(question, model, prefix="params/")


def _with_sines(path: Path, settings: ModelSettings) -> Path:
    """The file in fp32 with the table that big_vision computes and does not keep: timm knows it as a learned one."""
    whole, kernel = path.with_name("with-sines.npz"), "embedding/kernel"
    with loaded(path) as arrays:
        named: dict[str, Any] = {name: widened(arrays[name]) for name in arrays.files}
    prefix = min((name for name in named if name.endswith(kernel)), key=len).removesuffix(kernel)
    named[f"{prefix}pos_embedding"] = sincos_2d(settings.grid, settings.sizes.width)[None]
    np.savez(whole, **named)
    return whole


def _npz_outputs(question: Question, model: Any, prefix: str = "") -> Answer:
    """timm leaves out a representation layer and the head behind it: of our own files both are computed here from the
    arrays, of others' only what comes before is compared."""
    path, settings = question.tensors[0], question.settings
    if question.all_bf16 and not question.is_ours:
        _load_bf16(model, str(path))
    else:
        model.load_pretrained(str(_as_fp32(path) if question.all_bf16 else path))
    outputs = _timm_outputs(model, question)
    if question.is_ours and settings.representation != "none":
        features = outputs["features"] = torch.tanh(_dense(path, f"{prefix}pre_logits", outputs["pooled"]))
        outputs["logits"] = _dense(path, f"{prefix}head", features) if settings.classes else features
    return version(library("timm")), outputs


def _timm_model(question: Question, **arguments: Any) -> Any:
    """A model of the settings' sizes, without what timm has no place for."""
    timm, settings = library("timm"), question.settings
    if settings.representation != "none":
        settings = settings.model_copy(update={"representation": "none", "classes": 0})
    if settings.resnet is not None:
        if not question.is_ours and timm_limits(settings):
            raise Unavailable(f"timm has no function for {settings.variant}")
        # its class rather than its functions, which have names for half of the paper's ResNets only
        return library("timm.models.resnetv2").ResNetV2(
            layers=list(settings.resnet.blocks),
            width_factor=settings.resnet.width_factor,
            num_classes=settings.classes,
            stem_type="fixed",
            conv_layer=partial(library("timm.layers").StdConv2d, eps=1e-8),
        )
    if question.is_ours or settings.position == "sincos2d":
        arguments["pos_embed"] = "learn"  # whatever our model computes them from, they stand there as a table
    if not question.is_ours:
        arguments["norm_layer"] = partial(nn.LayerNorm, eps=settings.norm_eps)
    if question.images.shape[1] != 3:
        arguments["in_chans"] = question.images.shape[1]
    arguments = timm_arguments(settings) | arguments
    return timm.create_model(timm_architecture(settings), num_classes=settings.classes, **arguments)


def _timm_outputs(model: Any, question: Question) -> dict[str, Tensor]:
    model, settings = model.eval().float(), question.settings
    seen = model.forward_features(question.images)
    pooled = model.forward_head(seen, pre_logits=True)
    outputs = {"pooled": pooled}
    if question.is_ours or settings.representation == "none":  # of others' files timm leaves that layer out
        outputs["features"] = pooled
    if model.num_classes or not settings.classes:
        outputs["logits"] = model.forward_head(seen)
    if settings.family != "resnet":
        outputs["encoded"] = model.norm(_through(model, quiet_tokens(settings), settings.grid))
    return outputs


def _through(model: Any, tokens_BTD: Tensor, grid: int) -> Tensor:
    """Tokens through all blocks, with the rotary positions of an Eva."""
    rope = getattr(model, "rope", None)
    if rope is None:
        for block in model.blocks:
            tokens_BTD = block(tokens_BTD)
        return tokens_BTD
    table = rope.get_embed(shape=(grid, grid))
    for block in model.blocks:
        tokens_BTD = block(tokens_BTD, rope=table)
    return tokens_BTD


def _load_bf16(model: Any, path: str) -> None:
    try:
        library("timm.models.vision_transformer")._load_weights(model, path, load_bfloat16=True)
    except ImportError as error:
        raise Unavailable(f"timm reads bf16 arrays through {error.name}, which is not installed") from error


def _as_fp32(path: Path) -> Path:
    """The file with its bf16 numbers as fp32: timm reads bf16 through jax alone, which a proof cannot ask for."""
    wide = path.with_name("widened.npz")
    with loaded(path) as arrays:
        named: dict[str, Any] = {name: widened(arrays[name]) for name in arrays.files}
        np.savez(wide, **named)
    return wide


def _dense(path: Path, name: str, features_BR: Tensor) -> Tensor:
    with loaded(path) as arrays:
        kernel, bias = (torch.from_numpy(widened(arrays[f"{name}/{part}"])) for part in ("kernel", "bias"))
    return features_BR @ kernel + bias


def transformers_folder(question: Question) -> Answer:
    """By `ViTForImageClassification.from_pretrained(DIR)`; without a head by `ViTModel`."""
    refuse_overruled(question)
    if question.config is None:
        raise Unavailable("transformers needs a config.json beside the tensors, there is none")
    transformers = library("transformers")
    folder = question.config.parent
    arguments: dict[str, Any] = {"local_files_only": True, "dtype": "float32", "return_dict": True}
    transformers.utils.logging.disable_progress_bar()  # it draws one for every model it loads, into logs too
    question, prepared = transformers_images(question)
    if question.settings.classes:
        # as many as the head has, which a config that names others, or none, may not say
        arguments["num_labels"] = question.settings.classes
        model = transformers.ViTForImageClassification.from_pretrained(folder, **arguments).eval()
        with inputs_of(model.classifier) as seen:
            logits = model(question.images).logits
        body, outputs = model.vit, {"logits": logits, "features": seen[0], "pooled": seen[0]}
    else:
        pools = question.settings.representation != "none"
        body = transformers.ViTModel.from_pretrained(folder, add_pooling_layer=pools, **arguments).eval()
        seen = body(question.images)
        outputs = {"pooled": seen.last_hidden_state[:, 0]} | ({"features": seen.pooler_output} if pools else {})
    tokens_BTD = quiet_tokens(question.settings)
    for layer in body.layers:
        tokens_BTD = layer(tokens_BTD)
    return version(transformers), {**outputs, **prepared, "encoded": body.layernorm(tokens_BTD)}


def torchvision_file(question: Question) -> Answer:
    """By `load_state_dict` of its function's model, of its class where no function has these sizes."""
    torchvision, load_file = library("torchvision"), library("safetensors.torch").load_file
    settings, sizes = question.settings, question.settings.sizes
    question = torchvision_images(question)
    if not settings.classes:
        raise Unavailable("torchvision has no model without a head")
    if question.images.shape[1] != 3:
        raise Unavailable("torchvision has no model of grey images")
    arguments: dict[str, Any] = {"num_classes": settings.classes, "image_size": settings.grid * sizes.patch_px}
    if settings.representation != "none":
        arguments["representation_size"] = settings.feature_width
    if not question.is_ours:
        arguments["norm_layer"] = partial(nn.LayerNorm, eps=settings.norm_eps)
    if sizes not in FUNCTIONS:
        arguments |= {"patch_size": sizes.patch_px, "num_layers": sizes.layers, "num_heads": sizes.heads}
        arguments |= {"hidden_dim": sizes.width, "mlp_dim": sizes.mlp}
    with torch.device("meta"):
        model = getattr(torchvision.models, FUNCTIONS.get(sizes, "VisionTransformer"))(**arguments)
    state = {name: tensor for path in question.tensors for name, tensor in load_file(path).items()}
    model.load_state_dict(state, assign=True)
    model = model.eval().float()
    with inputs_of(model.heads) as pooled, inputs_of(model.heads.head) as features:
        logits = model(question.images)
    encoded = model.encoder.ln(model.encoder.layers(quiet_tokens(settings)))
    outputs = {"logits": logits, "features": features[0], "pooled": pooled[0], "encoded": encoded}
    return version(torchvision), outputs


def onnx_graph(question: Question) -> Answer:
    """By an InferenceSession on the CPU, once with all images and once with one: the batch is dynamic."""
    onnx, onnxruntime = library("onnx"), library("onnxruntime")
    path, images = question.tensors[0], question.images.numpy()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors: it warns of each constant that it folds
    written = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    logits = torch.from_numpy(written.run(["logits"], {"images": images})[0])
    alone = torch.from_numpy(written.run(["logits"], {"images": images[:1]})[0])
    # the same graph with one more output, what enters its last layer: a head of zeros would hide it
    graph, opened = onnx.load(path, load_external_data=False), path.with_name("features.onnx")
    head = next(node for node in graph.graph.node if "logits" in node.output)
    graph.graph.output.append(onnx.helper.make_tensor_value_info(head.input[0], onnx.TensorProto.FLOAT, None))
    onnx.save(graph, opened)
    session = onnxruntime.InferenceSession(opened, options, providers=["CPUExecutionProvider"])
    features = torch.from_numpy(session.run(None, {"images": images})[1])
    return version(onnxruntime), {"logits": torch.cat([alone, logits[1:]]), "features": features}


def refuse_overruled(question: Question) -> None:
    """Unavailable where the recipe asks for another function than the config."""
    if question.is_overruled:
        raise Unavailable("config.source asks for another GELU or epsilon than the library reads from its config")


@contextmanager
def inputs_of(module: nn.Module) -> Iterator[list[Tensor]]:
    """What enters a module while it is used."""
    seen: list[Tensor] = []
    handle = module.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    try:
        yield seen
    finally:
        handle.remove()
