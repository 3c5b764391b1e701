"""The state of an engine as files and back, without a store; and the state of a committed step, number by number."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitpipe.stages.artifacts import Checkpoint
from vitpipe.stages.contract import StageContext
from vitpipe.stages.training import agree
from vitpipe.stages.training.checkpoint.committed_steps import STATE
from vitpipe.stages.training.checkpoint.restore import Restore
from vitpipe.stages.training.checkpoint.snapshot import Snapshot
from vitpipe.stages.training.checkpoint.state_files import AVERAGE, LAYOUT, StateFiles
from vitpipe.stages.training.config import WEIGHT
from vitpipe.stages.training.engine import Engine


def write_state(engine: Engine, folder: Path, rank: int) -> None:
    """All ranks write into `folder/state`."""
    snapshot = Snapshot(engine, rank)
    snapshot.take(0)
    state = folder / STATE
    state.mkdir(parents=True, exist_ok=True)
    for file in snapshot.files:
        snapshot.write(file, state / file)
    runs = agree.each(lambda: snapshot.runs)
    agree.on_first(lambda: (state / LAYOUT).write_bytes(snapshot.layout(runs).encoded()), rank)


def read_state(engine: Engine, folder: Path) -> None:
    """Load what `write_state` wrote, by any ranks."""
    Restore(engine, folder, None, None)._take(StateFiles(folder / STATE))  # type: ignore[arg-type]


def numbers(folder: Path) -> dict[str, Tensor]:
    """Every number of a state, whoever wrote it: kind/parameter -> whole tensor in the type it was kept in."""
    files = StateFiles(folder)
    layout, found = files.layout, {}
    for kind in (WEIGHT, *layout.moments, *([AVERAGE] if layout.average else [])):
        for name, shape in layout.shapes.items():
            lean = kind in layout.moments and _is_lean(folder, kind, name)
            whole = torch.empty(shape, dtype=torch.bfloat16 if lean else torch.float32)
            files.copy(kind, name, 0, whole.view(-1))
            found[f"{kind}/{name}"] = whole
    found["updates"] = torch.tensor(layout.updates)
    return found


def _is_lean(folder: Path, kind: str, name: str) -> bool:
    for path in folder.glob("moments-*"):
        with path.open("rb") as file:
            entries: dict[str, Any] = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        for key, entry in entries.items():
            if key.startswith(f"{kind}/{name}/"):
                return bool(entry["dtype"] == "BF16")
    return False


def committed(ctx: StageContext, made: Checkpoint) -> dict[str, Tensor]:
    """The numbers of a checkpoint's own step."""
    node = Path(ctx.out.node.uri.removeprefix("file://"))
    return numbers((node / made.file(f"{made.folder}/manifest.json").at).parent / STATE)


def curve(ctx: StageContext, made: Checkpoint) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what depends on the clock."""
    lines = [json.loads(line) for line in ctx.out.node.read(made.file("metrics.jsonl").at).splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def differing(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> list[str]:
    """Names of numbers that are not equal to the last bit."""
    return [name for name in ours.keys() | theirs.keys() if not torch.equal(ours[name], theirs[name])]
