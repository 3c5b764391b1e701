"""The state of one rank as it was at one moment: copied into host buffers, written from there while training goes on.

The copy is all that training waits for. The buffers are made once, touched, and used again; pinned on a GPU, so that
the copy runs at the bus's speed.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from vitpipe.infra.errors import StorageError
from vitpipe.infra.faults import reach
from vitpipe.infra.storage.store import Digest
from vitpipe.stages.training.checkpoint.state_files import AVERAGE, MOMENTS, WEIGHTS, Layout, Run, file_name, key
from vitpipe.stages.training.engine import Engine

_CHUNK_BYTES = 2**24


class Snapshot:
    """Host copy of one engine's state; `take` and `write` are called in turns."""

    def __init__(self, engine: Engine, rank: int) -> None:
        self._rank = rank
        self._live = {file_name(sort, rank): runs for sort, runs in _runs(engine).items() if runs}
        pinned = engine.device.type == "cuda"
        self._kept: dict[str, Tensor] = {}
        self._pairs: list[tuple[Tensor, Tensor]] = []
        for file, runs in self._live.items():
            total = sum(tensor.nbytes for tensor in runs.values())
            self._kept[file] = torch.empty(total, dtype=torch.uint8, pin_memory=pinned).fill_(0)
            start = 0
            for tensor in runs.values():
                stop = start + tensor.nbytes
                self._pairs.append((self._kept[file][start:stop].view(tensor.dtype), tensor))
                start = stop
        self.files = tuple(self._kept)
        self.runs: tuple[Run, ...] = tuple(part.run for part in engine.state.share)
        self.updates = 0
        self._engine, self._pinned = engine, pinned

    def take(self, step: int) -> None:
        """Copy the state as it is now."""
        half = len(self._pairs) // 2
        for number, (kept, live) in enumerate(self._pairs):
            if number == half:
                reach("save:copy", step, self._rank)
            kept.copy_(live, non_blocking=self._pinned)
        self.updates = self._engine.state.updates
        if self._pinned:
            torch.cuda.current_stream().synchronize()

    def layout(self, runs: Iterable[tuple[Run, ...]]) -> Layout:
        """Describe the files that all ranks together have written, given the `runs` of each, in order."""
        state, average = self._engine.state, self._engine.average is not None
        return Layout(
            updates=self.updates, shapes=state.shapes, moments=state.moments, average=average, runs=tuple(runs)
        )

    def write(self, file: str, path: Path) -> Digest:
        """Write one of `files` as it was taken, hashed on the way. StorageError when the disk will not have it."""
        data, digest = self._kept[file].numpy().data, hashlib.sha256()
        cut = (data[start : start + _CHUNK_BYTES] for start in range(0, len(data), _CHUNK_BYTES))
        chunks = (memoryview(_header(self._live[file])), *cut)
        size = 0
        try:
            with path.open("wb") as out:
                for chunk in chunks:
                    digest.update(chunk)
                    out.write(chunk)
                    size += len(chunk)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise StorageError(f"write a checkpoint to {path}", str(error), "free space on the scratch disk") from error
        return Digest(size, digest.hexdigest())


def _runs(engine: Engine) -> dict[str, dict[str, Tensor]]:
    """This rank's share by sort of file, wider types first so that all lie aligned."""
    state, found = engine.state, {}
    for sort, kinds in ((WEIGHTS, ("weight",)), (MOMENTS, state.moments)):
        runs = [
            (key(kind, part.name, part.start), tensor)
            for kind in kinds
            for part, tensor in zip(state.share, state.numbers(kind, state.share), strict=True)
        ]
        found[sort] = dict(sorted(runs, key=lambda run: -run[1].element_size()))
    if engine.average is not None:
        pairs = zip(state.share, engine.average.kept, strict=True)
        found[AVERAGE] = {key(AVERAGE, part.name, part.start): tensor for part, tensor in pairs}
    return found


def _header(runs: dict[str, Tensor]) -> bytes:
    """What a safetensors file begins with whose flat tensors follow each other in this order."""
    names = {torch.float32: "F32", torch.bfloat16: "BF16"}
    entries: dict[str, object] = {}
    start = 0
    for name, tensor in runs.items():
        stop = start + tensor.nbytes
        entries[name] = {"dtype": names[tensor.dtype], "shape": [tensor.numel()], "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format aligns the data to 8 bytes
    return len(text).to_bytes(8, "little") + text
