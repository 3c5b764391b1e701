"""Write all wanted formats in one pass over the source: each tensor is read once or twice, a few are held at a time.

Imports no torch, whose libraries alone take more memory than the pass.
"""

import functools
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from vitpipe.infra.errors import Stopped
from vitpipe.stages.artifacts import File
from vitpipe.stages.contract import TaskContext
from vitpipe.stages.convert.config import Dtype, Format
from vitpipe.stages.convert.containers.hashed_file import need_room
from vitpipe.stages.convert.containers.npz_file import NpzFile
from vitpipe.stages.convert.containers.safetensors_file import SafetensorsFile, file_bytes
from vitpipe.stages.convert.described import FILES, NPZ, About, about_of, companions, header
from vitpipe.stages.convert.layouts import Target, layout
from vitpipe.stages.convert.numbers import finite, in_range
from vitpipe.stages.convert.task import WriteTask
from vitpipe.stages.convert.tensors import Tensors, open_source
from vitpipe.stages.vit.settings_file import SETTINGS, settings_json

Layouts = Mapping[Format, list[Target]]
Writer = SafetensorsFile | NpzFile


def write(task: WriteTask) -> tuple[File, ...]:
    """Convert, upload, and give the files of all formats but ONNX, which cannot be written tensor by tensor.

    Errors: those of reading the source; StorageError for a full disk; StageError for numbers that are not finite;
    Stopped.
    """
    scratch, out = task.ctx.scratch, task.ctx.out
    formats: list[Format] = [name for name in task.config.formats if name != "onnx"]
    written = scratch / "written"
    source = open_source(task.source, scratch / "source", task.config.use)
    about = about_of(task, source.settings)
    layouts: Layouts = {name: layout(name, source) for name in formats}
    dtype = task.config.dtype
    need_room(scratch, sum(file_bytes(_shapes(targets), dtype) for targets in layouts.values()))
    with ExitStack() as stack:
        writers: dict[Format, Writer] = {}
        for name, targets in layouts.items():
            writers[name] = _open(name, written / name / FILES[name], _shapes(targets), dtype, about)
            stack.push(writers[name])
        _stream(source, layouts, writers, task.ctx)
        digests = {f"{name}/{FILES[name]}": writer.digest() for name, writer in writers.items()}
    # given away by their digests, so that a store of this disk takes them without a copy; what the store then holds is
    # read back and compared by the checks
    files = [task.ctx.out.upload(written / at, at, digest) for at, digest in digests.items()]
    small = {f"{name}/{path}": data for name in formats for path, data in companions(name, about).items()}
    if "native" in formats:
        small[f"native/{SETTINGS}"] = settings_json(source.settings)
    return (*files, *(out.put(path, data) for path, data in small.items()))


def _open(name: Format, path: Path, shapes: list[tuple[str, tuple[int, ...]]], dtype: Dtype, about: About) -> Writer:
    if path.name == NPZ:
        return NpzFile(path, shapes, dtype)
    return SafetensorsFile(path, shapes, dtype, header(name, about))


def _stream(source: Tensors, layouts: Layouts, writers: Mapping[Format, Writer], ctx: TaskContext) -> None:
    """Walk the native tensors; after each, all formats write what is then complete. So a tensor read for one format is
    still there for the next."""
    read = finite(functools.lru_cache(maxsize=2)(source.read))
    waiting = {name: list(reversed(targets)) for name, targets in layouts.items()}
    for place in range(len(source.shapes)):
        reason = ctx.fence.stopping()
        if reason is not None:
            raise Stopped("convert", reason, "run the same command again")
        for name, targets in waiting.items():
            while targets and targets[-1].place == place:
                target = targets.pop()
                array = target.make(*(read(each) for each in target.sources))
                writers[name].add(target.name, in_range(array, target.name, writers[name].dtype))
        ctx.progress.update(place + 1, len(source.shapes), unit="tensors")


def _shapes(targets: list[Target]) -> list[tuple[str, tuple[int, ...]]]:
    return [(target.name, target.shape) for target in targets]
