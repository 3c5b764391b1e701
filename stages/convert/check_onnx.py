"""The answers of onnxruntime to a written graph."""

from pathlib import Path
from typing import Any

import torch

from vitpipe.stages.convert.described import ONNX
from vitpipe.stages.convert.own_model import Absent, Given, Outputs

_FEATURES = "features.onnx"


def onnx_outputs(given: Given) -> tuple[str, Outputs]:
    """By an InferenceSession on the CPU, once with all images and once with one: the batch is dynamic."""
    try:
        import onnx  # both part of the extra `parity`: only the proof needs them
        import onnxruntime
    except ImportError as error:
        raise Absent("onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors: it warns of each constant that it folds
    images = given.scaled.numpy()
    written = onnxruntime.InferenceSession(given.folder / ONNX, options, providers=["CPUExecutionProvider"])
    logits = torch.from_numpy(written.run(["logits"], {"images": images})[0])
    alone = torch.from_numpy(written.run(["logits"], {"images": images[:1]})[0])
    looked_into = onnxruntime.InferenceSession(
        _with_features(onnx, given.folder), options, providers=["CPUExecutionProvider"]
    )
    features = torch.from_numpy(looked_into.run(None, {"images": images})[1])
    outputs = {"logits": torch.cat([alone, logits[1:]]), "features": features}
    return f"onnxruntime {onnxruntime.__version__}", outputs


def _with_features(onnx: Any, folder: Path) -> Path:
    """The graph with one more output, what enters its last layer: a head of zeros would hide it."""
    model = onnx.load(folder / ONNX, load_external_data=False)
    head = next(node for node in model.graph.node if "logits" in node.output)
    model.graph.output.append(onnx.helper.make_tensor_value_info(head.input[0], onnx.TensorProto.FLOAT, None))
    onnx.save(model, folder / _FEATURES)
    return folder / _FEATURES
