"""Write all formats that stream in one pass over the source: each tensor is read once or twice, a few are held at a
time. Imports no torch, whose libraries alone take more memory than the pass.
"""

import functools
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from vitpipe.infra.work import stop_if_asked
from vitpipe.stages.artifacts import File
from vitpipe.stages.contract import TaskContext
from vitpipe.stages.convert.config import Format
from vitpipe.stages.convert.containers.hashed_file import ArraysFile, need_room
from vitpipe.stages.convert.containers.npz_file import NpzFile
from vitpipe.stages.convert.containers.safetensors_file import SafetensorsFile, file_bytes
from vitpipe.stages.convert.formats.common import NPZ, About, WeightsFormat, format_of
from vitpipe.stages.convert.links import Made, foreign_shapes, outward
from vitpipe.stages.convert.numbers import Shape, finite, in_range
from vitpipe.stages.convert.origin import about_of
from vitpipe.stages.convert.task import WriteTask
from vitpipe.stages.convert.tensors import Tensors, open_source


@dataclass(frozen=True)
class Target:
    """One tensor of a format, and its shape there."""

    made: Made
    shape: Shape
    place: int
    """Of its last source among the native tensors: the formats are written side by side in that order."""


def write(task: WriteTask) -> tuple[File, ...]:
    """Convert, upload, and give the files of the task's formats.

    Errors: those of reading the source; StorageError for a full disk; StageError for numbers that are not finite;
    Stopped.
    """
    scratch, out = task.ctx.scratch, task.ctx.out
    written = scratch / "written"
    source = open_source(task.source, scratch / "source", task.config.use)
    about, dtype = about_of(task, source.settings), task.config.dtype
    formats = [format_of(name) for name in task.formats]
    layouts = {each.name: layout(each, source) for each in formats}
    need_room(scratch, sum(file_bytes(_shapes(targets), dtype) for targets in layouts.values()))
    with ExitStack() as stack:
        writers: dict[Format, ArraysFile] = {}
        for name, targets in layouts.items():
            writers[name] = stack.enter_context(_open(name, written, targets, about))
        _stream(source, layouts, writers, task.ctx)
        digests = {f"{name}/{writer.path.name}": writer.digest() for name, writer in writers.items()}
    # given away by their digests, so that a store of this disk takes them without a copy; what the store then holds is
    # read back and compared by the checks
    files = [out.upload(written / at, at, digest) for at, digest in digests.items()]
    small = {f"{each.name}/{path}": data for each in formats for path, data in each.companions(about).items()}
    return (*files, *(out.put(path, data) for path, data in small.items()))


def layout(format: WeightsFormat, source: Tensors) -> list[Target]:
    """All tensors of a format in the order they are written, which follows the native order.

    ValueError when a native tensor would be left out: `refuse` has said before what a format cannot hold.
    """
    links = format.links(source.settings) if format.links else []
    places = {each: place for place, each in enumerate(source.shapes)}
    left_out = source.shapes.keys() - {each for link in links for each in link.native}
    if left_out:
        raise ValueError(f"{format.name} has no place for {', '.join(sorted(left_out))}")
    shapes = foreign_shapes(links, source.shapes)
    last = {made.name: max((places[one] for one in made.sources), default=0) for made in outward(links)}
    targets = [Target(made, shapes[made.name], last[made.name]) for made in outward(links)]
    return sorted(targets, key=lambda target: target.place)


def _open(name: Format, folder: Path, targets: list[Target], about: About) -> ArraysFile:
    format = format_of(name)
    path, shapes = folder / name / format.file, _shapes(targets)
    if format.file == NPZ:
        return NpzFile(path, shapes, about.dtype)
    return SafetensorsFile(path, shapes, about.dtype, format.header(about))


def _stream(
    source: Tensors, layouts: Mapping[Format, list[Target]], writers: Mapping[Format, ArraysFile], ctx: TaskContext
) -> None:
    """Walk the native tensors; after each, all formats write what is then complete. So a tensor read for one format is
    still there for the next."""
    read = finite(functools.lru_cache(maxsize=2)(source.read))
    waiting = {name: list(reversed(targets)) for name, targets in layouts.items()}
    for place in range(len(source.shapes)):
        stop_if_asked(ctx.fence, "convert")
        for name, targets in waiting.items():
            while targets and targets[-1].place == place:
                made = targets.pop().made
                array = made.make(*(read(each) for each in made.sources))
                writers[name].add(made.name, in_range(array, made.name, writers[name].dtype))
        ctx.progress.update(place + 1, len(source.shapes), unit="tensors")


def _shapes(targets: list[Target]) -> list[tuple[str, Shape]]:
    return [(target.made.name, target.shape) for target in targets]
