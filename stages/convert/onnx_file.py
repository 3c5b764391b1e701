"""Write our model as an ONNX graph: images in [-1, 1] to logits, for any number of images.

Unlike the other formats this one is traced from the whole model, so memory grows with it: it has a task of its own.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from vitpipe.infra.errors import UsageError
from vitpipe.stages.artifacts import File
from vitpipe.stages.convert.containers.hashed_file import need_room
from vitpipe.stages.convert.containers.safetensors_file import file_bytes
from vitpipe.stages.convert.formats.onnx import FORMAT
from vitpipe.stages.convert.numbers import checked
from vitpipe.stages.convert.origin import about_of
from vitpipe.stages.convert.own_model import DTYPES, load_model
from vitpipe.stages.convert.task import WriteTask
from vitpipe.stages.convert.tensors import open_source
from vitpipe.stages.model_settings import ModelSettings


def write_onnx(task: WriteTask) -> tuple[File, ...]:
    """Build, write and upload the graph; with it `model.onnx.data` where it is beyond ONNX's 2 GB for one file.

    Errors: those of reading the source; UsageError where the extra `parity` is not installed; StorageError for a disk
    without room; StageError for numbers that are not finite.
    """
    folder = task.ctx.scratch / "written-onnx"
    folder.mkdir(parents=True, exist_ok=True)
    source = open_source(task.source, task.ctx.scratch / "source", task.config.use)
    about = about_of(task, source.settings)
    dtype = task.config.dtype
    need_room(folder, file_bytes(list(source.shapes.items()), dtype))
    model = load_model(replace(source, read=checked(source.read, dtype)), DTYPES[dtype])
    build_onnx(model, source.settings, folder / FORMAT.file, DTYPES[dtype], FORMAT.header(about))
    return tuple(task.ctx.out.upload(path, f"{FORMAT.name}/{path.name}") for path in sorted(folder.iterdir()))


def build_onnx(
    model: nn.Module, settings: ModelSettings, path: Path, dtype: torch.dtype, said: Mapping[str, str]
) -> None:
    """Trace the model and write it to `path`. Weights of another type than fp32 are cast where they are used."""
    try:
        import onnxscript  # noqa: F401  # part of the extra `parity`; torch's exporter needs it
    except ImportError as error:
        raise UsageError("write ONNX", "onnxscript is not installed", "type `pip install 'vitpipe[parity]'`") from error
    images = torch.zeros(2, 3, settings.image_px, settings.image_px)
    batch = torch.export.Dim("batch", min=1)
    # the fused kernels' strides are those of a CPU, and torch cannot decompose them
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        names: dict[str, Any] = {"input_names": ["images"], "output_names": ["logits"], "verbose": False}
        program: Any = torch.onnx.export(model, (images,), dynamic_shapes=({0: batch},), dynamo=True, **names)
    _strip(program.model)
    if dtype != torch.float32:
        _narrow(program.model, dtype)
    program.model.producer_name, program.model.producer_version = "vitpipe", ""
    program.model.metadata_props.update(said)
    program.save(path)


def _strip(model: Any) -> None:
    """Take away what the exporter notes of this machine: lines of source, paths."""
    model.metadata_props.clear()
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
    for value in (*model.graph.initializers.values(), *model.graph.inputs, *model.graph.outputs):
        value.metadata_props.clear()


def _narrow(model: Any, dtype: torch.dtype) -> None:
    """Store each weight that `dtype` holds exactly, as all rounded ones, in it, with a cast behind it."""
    from onnxscript import ir  # with the exporter

    narrow = {torch.bfloat16: ir.DataType.BFLOAT16, torch.float16: ir.DataType.FLOAT16}[dtype]
    for name, value in list(model.graph.initializers.items()):
        numbers = torch.from_numpy(value.const_value.numpy().copy())
        if numbers.dtype != torch.float32 or numbers.numel() < 2 or not torch.equal(numbers.to(dtype).float(), numbers):
            continue
        raw = numbers.to(dtype).contiguous().view(torch.uint8).numpy().tobytes()
        tensor = ir.TensorProtoTensor(_proto(f"{name}.stored", numbers.shape, narrow, raw))
        stored = ir.Value(name=tensor.name, shape=value.shape, type=ir.TensorType(narrow), const_value=tensor)
        cast = ir.node("Cast", [stored], attributes={"to": int(ir.DataType.FLOAT)})
        cast.outputs[0].name = f"{name}.cast"
        cast.outputs[0].shape, cast.outputs[0].type = value.shape, ir.TensorType(ir.DataType.FLOAT)
        value.replace_all_uses_with(cast.outputs[0])
        model.graph.initializers.pop(name)
        model.graph.initializers.add(stored)
        model.graph.insert_before(model.graph[0], cast)


def _proto(name: str, shape: torch.Size, kind: Any, raw: bytes) -> Any:
    import onnx  # with the exporter

    return onnx.TensorProto(name=name, dims=list(shape), data_type=int(kind), raw_data=raw)
