"""Write all wanted formats in one pass over the source: each tensor is read once and no more than two are held."""

import functools
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path

import torch
from torch import Tensor

from infra.errors import IntegrityError, StageError, Stopped, StorageError
from infra.storage.store import Digest
from stages.artifacts import File
from stages.contract import TaskContext
from stages.convert.config import Format
from stages.convert.layouts import DTYPES, Target, layout, metadata
from stages.convert.safetensors_file import SafetensorsFile, file_bytes
from stages.convert.source import Tensors, open_source
from stages.convert.task import WriteTask
from stages.convert.timm_config import timm_config
from stages.vit.native import SETTINGS, TENSORS, settings_json

Layouts = Mapping[Format, list[Target]]


def write(task: WriteTask) -> tuple[File, ...]:
    """Convert, upload, and give the files of all formats.

    Errors: those of reading the source; StorageError for a full disk; StageError for numbers that are not finite;
    Stopped.
    """
    scratch, out, formats = task.ctx.scratch, task.ctx.out, task.config.formats
    written = scratch / "written"
    source = open_source(task.source, scratch / "source", task.config.use)
    layouts = {name: layout(name, source) for name in formats}
    dtype = DTYPES[task.config.dtype]
    _need_room(scratch, sum(file_bytes(_shapes(targets), dtype) for targets in layouts.values()))
    with ExitStack() as stack:
        writers = {
            name: stack.enter_context(
                SafetensorsFile(written / name / TENSORS, _shapes(targets), dtype, metadata(name, source.settings))
            )
            for name, targets in layouts.items()
        }
        _stream(source, layouts, writers, task.ctx)
        digests = {name: writer.digest() for name, writer in writers.items()}
    files = [_upload(task.ctx, written / name / TENSORS, f"{name}/{TENSORS}", digests[name]) for name in formats]
    described = {
        f"native/{SETTINGS}": settings_json(source.settings),
        "timm/config.json": timm_config(source.settings, task.labels),
    }
    return (*files, *(out.put(path, data) for path, data in described.items() if path.split("/")[0] in formats))


def _stream(source: Tensors, layouts: Layouts, writers: Mapping[Format, SafetensorsFile], ctx: TaskContext) -> None:
    """Walk the formats side by side. They follow one order, so a tensor read for one is still there for the next."""
    rows = list(zip_longest(*layouts.values()))
    read = _finite(functools.lru_cache(maxsize=2)(source.read))
    for number, row in enumerate(rows, start=1):
        reason = ctx.fence.stopping()
        if reason is not None:
            raise Stopped("convert", reason, "run the same command again")
        for writer, target in zip(writers.values(), row, strict=True):
            if target is not None:
                writer.add(target.name, target.make(*(read(name) for name in target.sources)))
        ctx.progress.update(number, len(rows), unit="tensors")


def _finite(read: Callable[[str], Tensor]) -> Callable[[str], Tensor]:
    def checked(name: str) -> Tensor:
        tensor = read(name)
        # the sum of squares is finite only if all are: one pass, no mask as large as the tensor
        if not torch.isfinite(torch.linalg.vector_norm(tensor, dtype=torch.float64)):
            raise StageError(f"convert {name}", "it holds numbers that are not finite", "train again from before")
        return tensor

    return checked


def _shapes(targets: list[Target]) -> list[tuple[str, tuple[int, ...]]]:
    return [(target.name, target.shape) for target in targets]


def _need_room(scratch: Path, needed: int) -> None:
    scratch.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(scratch).free
    if free < needed:
        raise StorageError(
            f"write {needed / 1e9:.2f} GB of weights below {scratch}", f"{free / 1e9:.2f} GB are free", "make room"
        )


def _upload(ctx: TaskContext, local: Path, path: str, written: Digest) -> File:
    file = ctx.out.upload(local, path)
    if file.digest != written:
        raise IntegrityError(
            f"upload {local}", f"written with SHA-256 {written.sha256}, read back {file.sha256}", "check the disk"
        )
    local.unlink()
    return file
