"""DeepSpeed's ZeRO checkpoint files, read one parameter at a time: the fp32 weights of any stage and world size.

Files are mapped, not loaded, so memory is that of the largest parameter. Needs no deepspeed and runs no code from
the pickles; still, open only what a manifest vouches for. The layouts are those of DeepSpeed 0.19
(`utils/zero_to_fp32.py` reads the same ones, all at once); the tests write every one with real engines.
"""

import math
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from infra.errors import IntegrityError
from stages.training.inert_pickle import load_mapped
from stages.training.steps import average_files

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Piece:
    """Where a part of a parameter lies: elements [start, stop) of a flat tensor."""

    flat: Tensor
    start: int
    stop: int


class _Layout(Protocol):
    """One way of laying parameters out: `shapes` in checkpoint order, `pieces` of each."""

    shapes: dict[str, Shape]

    def pieces(self, name: str) -> list[Piece]: ...


class ZeroFiles:
    """The master weights, or their running average, in a folder that `engine.save_checkpoint` wrote (the tag's folder).

    `shapes` is name -> shape in file order, those of `leave_out` left out. IntegrityError when files are missing or do
    not add up.
    """

    def __init__(self, folder: Path, leave_out: Container[str] = (), average: bool = False) -> None:
        self.folder = folder
        files = {path.name: path for path in folder.glob("*.pt")}
        model = load_mapped(files[_one(needed_model_file(files), folder)])
        optimizers = [load_mapped(files[name])["optimizer_state_dict"] for name in _by_rank(files)]
        if average:
            kept = [load_mapped(files[name])["average"] for name in average_files(files)]
            model, optimizers = _averaged(folder, kept, model, optimizers)
        self._layout = _layout(folder, model, optimizers)
        self.shapes = {name: shape for name, shape in self._layout.shapes.items() if name not in leave_out}

    def tensor(self, name: str) -> Tensor:
        """One parameter in fp32, in memory of its own."""
        pieces = [piece.flat.detach()[piece.start : piece.stop] for piece in self._layout.pieces(name)]
        wanted = math.prod(self.shapes[name])
        found = sum(piece.numel() for piece in pieces)
        if found < wanted:
            raise IntegrityError(
                f"read {name} from {self.folder}", f"{found} of {wanted} numbers are there", "use another step"
            )
        flat = torch.empty(found, dtype=torch.float32)
        torch.cat([piece.float() for piece in pieces], out=flat)
        return flat[:wanted].reshape(self.shapes[name])

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        for name in self.shapes:
            yield name, self.tensor(name)


def needed_files(names: Sequence[str], average: bool = False) -> list[str]:
    """Which of a checkpoint's files hold the weights: the optimiser's of all ranks and one of the model's.

    With `average` also those of the average, which lies as they do.
    """
    return [*needed_model_file(names), *_by_rank(names), *(average_files(names) if average else ())]


def needed_model_file(names: Mapping[str, Any] | Sequence[str]) -> list[str]:
    """`mp_rank_00_model_states.pt`; at stage 3, where every rank has one, rank 0's."""
    wanted = ("mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_model_states.pt")
    return [name for name in wanted if name in names][:1]


def _one(names: list[str], folder: Path) -> str:
    if not names:
        found = ", ".join(sorted(path.name for path in folder.glob("*"))) or "nothing"
        raise IntegrityError(f"read a ZeRO checkpoint in {folder}", f"no model states there, but {found}", "")
    return names[0]


def _by_rank(names: Mapping[str, Any] | Sequence[str]) -> list[str]:
    pattern = re.compile(r"(?:bf16_)?zero_pp_rank_(\d+)_mp_rank_00_optim_states\.pt")
    found = {int(match[1]): name for name in names if (match := pattern.fullmatch(name))}
    return [found[rank] for rank in sorted(found)]


def _averaged(
    folder: Path, kept: list[dict[str, Tensor]], model: dict[str, Any], optimizers: list[dict[str, Any]]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The files' content with the average in the place of the weights."""
    if len(kept) != max(1, len(optimizers)):
        found = f"the averages of {len(kept)} ranks are there, not of {max(1, len(optimizers))}"
        raise IntegrityError(f"read the average in {folder}", found, "use another step")
    if not optimizers:
        return {"module": kept[0], "buffer_names": []}, []
    place = next(name for name in ("single_partition_of_fp32_groups", "fp32_flat_groups") if name in optimizers[0])
    return model, [state | {place: list(parts.values())} for state, parts in zip(optimizers, kept, strict=True)]


def _layout(folder: Path, model: dict[str, Any], optimizers: list[dict[str, Any]]) -> _Layout:
    asked = f"read the ZeRO checkpoint in {folder}"
    if not optimizers:
        return _Unsharded(asked, model)
    split = "single_partition_of_fp32_groups" in optimizers[0]
    counted = optimizers[0]["partition_count"]
    ranks = max(counted) if isinstance(counted, list) else counted
    if ranks != len(optimizers):
        found = f"it was written by {ranks} ranks, the optimiser states of {len(optimizers)} are there"
        raise IntegrityError(asked, found, "use another step")
    groups = [{name: tuple(shape) for name, shape in group.items()} for group in model["param_shapes"]]
    return _SplitByGroup(asked, groups, optimizers) if split else _SplitByParameter(asked, groups, optimizers)


class _Unsharded:
    """Stage 0: the module's own fp32 tensors; with bf16, the masters, which carry no names, in the optimiser.

    Each master list keeps the module's order and rounds to the module's tensors bit by bit: that names them.
    """

    def __init__(self, asked: str, model: dict[str, Any]) -> None:
        module: dict[str, Tensor] = model["module"]
        buffers = set(model["buffer_names"])
        tensors = {name: tensor for name, tensor in module.items() if name not in buffers}
        if any(tensor.dtype != torch.float32 for tensor in tensors.values()):
            optimizer = model.get("optimizer") or {}
            if "fp32_groups" not in optimizer:
                raise IntegrityError(asked, "it holds no fp32 weights", "save it with another optimiser or ZeRO stage")
            tensors = _named_masters(asked, tensors, optimizer["fp32_groups"])
        self._tensors = tensors
        self.shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}

    def pieces(self, name: str) -> list[Piece]:
        flat = self._tensors[name].reshape(-1)
        return [Piece(flat, 0, flat.numel())]


def _named_masters(asked: str, rounded: dict[str, Tensor], groups: list[list[Tensor]]) -> dict[str, Tensor]:
    queues, named = [list(group) for group in groups], {}
    for name, tensor in rounded.items():
        for queue in queues:
            if queue and queue[0].shape == tensor.shape and torch.equal(queue[0].to(tensor.dtype), tensor):
                named[name] = queue.pop(0)
                break
        else:
            raise IntegrityError(asked, f"no fp32 weights round to its {name}", "use another step")
    return named


class _SplitByGroup:
    """Stages 1 and 2: each optimiser group is one flat tensor, cut into consecutive runs of the ranks."""

    def __init__(self, asked: str, groups: list[dict[str, Shape]], optimizers: list[dict[str, Any]]) -> None:
        self.shapes = {name: shape for group in groups for name, shape in group.items()}
        self._runs = [[state["single_partition_of_fp32_groups"][i] for state in optimizers] for i in range(len(groups))]
        gaps = optimizers[0].get("param_alignment_paddings") or [[0] * len(group) for group in groups]
        self._place: dict[str, tuple[int, int]] = {}
        for index, group in enumerate(groups):
            start = 0
            for (name, shape), gap in zip(group.items(), gaps[index], strict=True):
                self._place[name] = (index, start)
                start += math.prod(shape) + gap
            held = sum(run.numel() for run in self._runs[index])
            if not start - (gaps[index][-1] if gaps[index] else 0) <= held <= start + 2 * len(optimizers):
                raise IntegrityError(asked, f"group {index} holds {held} numbers, its parameters {start}", "")

    def pieces(self, name: str) -> list[Piece]:
        index, start = self._place[name]
        stop, before, found = start + math.prod(self.shapes[name]), 0, []
        for run in self._runs[index]:
            low, high = max(start - before, 0), min(stop - before, run.numel())
            if low < high:
                found.append(Piece(run, low, high))
            before += run.numel()
        return found


class _SplitByParameter:
    """Stage 3: every parameter is cut into equal parts, one a rank, the last padded; each rank's parts follow each
    other in flat tensors that begin anew with every sub-group of the optimiser."""

    def __init__(self, asked: str, groups: list[dict[str, Shape]], optimizers: list[dict[str, Any]]) -> None:
        self.shapes = {name: shape for group in groups for name, shape in group.items()}
        self._flats = [state["fp32_flat_groups"] for state in optimizers]
        self._place: dict[str, tuple[int, int]] = {}
        index = start = 0
        for name, shape in self.shapes.items():
            part = self._part(shape)
            while index < len(self._flats[0]) and start + part > self._flats[0][index].numel():
                index, start = index + 1, 0
            if index == len(self._flats[0]):
                raise IntegrityError(asked, f"its flat tensors end before {name}", "use another step")
            self._place[name] = (index, start)
            start += part

    def _part(self, shape: Shape) -> int:
        return -(-math.prod(shape) // len(self._flats))

    def pieces(self, name: str) -> list[Piece]:
        (index, start), part = self._place[name], self._part(self.shapes[name])
        return [Piece(flats[index], start, start + part) for flats in self._flats]
