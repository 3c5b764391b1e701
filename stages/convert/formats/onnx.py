"""ONNX: a graph from images in [-1, 1] to logits, which runs in onnxruntime. Written only."""

from vitpipe.stages.convert.formats import common


def _header(about: common.About) -> dict[str, str]:
    side = about.settings.image_px
    preprocessing = {"resize": "squash", "interpolation": "bilinear", "mean": [0.5] * 3, "std": [0.5] * 3}
    said = {
        "input": f"images: float (batch, 3, {side}, {side}), RGB in [-1, 1]",
        "output": "logits: float (batch, classes)",
        "preprocessing": common.text(preprocessing),
        "model": about.settings.model_dump_json(),
    }
    return about.signed(said | about.id2label() | {"probabilities": about.activation})


FORMAT = common.WeightsFormat(
    name="onnx",
    file=common.ONNX,
    contents="vitpipe.stages.convert.onnx_file:write_onnx",
    limits=common.headless,
    unsaid=lambda settings: None,
    header=_header,
    companions=lambda about: {},
    pixels=common.HALF,
    consumer="vitpipe.stages.convert.consumers:onnx_graph",
    reading=None,
)
