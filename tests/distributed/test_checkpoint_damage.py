"""Each file of a checkpoint cut, flipped, missing, emptied or replaced by an older one: refused by all ranks."""

import functools
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from inprocess import CollectedEvents, HeldFence, InProcessCluster
from tiny_training import course, engine, steps

from vitpipe.infra.errors import IntegrityError
from vitpipe.infra.storage.opening import open_store
from vitpipe.infra.work import Rank
from vitpipe.stages.contract import Out
from vitpipe.stages.pretrain.config import PretrainResources
from vitpipe.stages.training import agree
from vitpipe.stages.training.checkpoint.checkpoints import Checkpoints
from vitpipe.stages.training.checkpoint.committed_steps import METRICS, Keep, StepManifest

FILES = (
    "manifest.json",
    METRICS,
    "state/layout.json",
    *(f"state/{sort}-0000{rank}.safetensors" for sort in ("weights", "moments", "average") for rank in (0, 1)),
)


def cut(path: Path, older: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path, older: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def remove(path: Path, older: Path) -> None:
    path.unlink()


def empty(path: Path, older: Path) -> None:
    path.write_bytes(b"")


def replace(path: Path, older: Path) -> None:
    shutil.copy(older, path)


DAMAGES = (cut, flip, remove, empty, replace)


@dataclass(frozen=True)
class Scene:
    folder: Path

    @property
    def node(self) -> Path:
        return self.folder / "store"

    @property
    def events(self) -> CollectedEvents:
        return CollectedEvents(self.folder / "events.jsonl")

    def step(self, number: int) -> Path:
        return self.node / "a1" / f"step-{number}"


def damage_everything(scene: Scene, rank: Rank) -> None:
    """Commit steps 2 and 4; then, for each file and damage, resume on both ranks and note what they took."""
    out = Out(open_store(f"file://{scene.node}"), "a1", HeldFence(scene.folder), b"{}")
    made = engine(rank, zero=1, ema_decay=0.9)
    nothing = Checkpoints(made, out, scene.folder / f"scratch-{rank.rank}", scene.events, rank, Keep(9))
    assert nothing.resume() is None, "nothing was committed yet, and nothing is missed"
    checkpoints = Checkpoints(made, out, scene.folder / f"scratch-{rank.rank}", scene.events, rank, Keep(9))
    for facts in steps(made, course(total_steps=4, settle_at=lambda step: step == 2)):
        if facts.settled:
            checkpoints.save(facts.step, facts.samples_seen, {METRICS: f"{facts.loss.hex()}\n".encode()})
    checkpoints.settle()
    agree.on_first(lambda: shutil.copy(scene.step(2) / FILES[0], scene.folder / "whole.json"), rank.rank)
    taken = {}
    for damage in (None, *DAMAGES):
        for name in FILES if damage else ("nothing",):
            if damage:
                agree.on_first(functools.partial(_damage, scene, damage, name), rank.rank)
            resumed = checkpoints.resume()
            taken[f"{damage.__name__ if damage else 'no damage'} {name}"] = resumed.manifest.step if resumed else 0
            if damage:
                agree.on_first(functools.partial(_repair, scene), rank.rank)
    (scene.folder / f"taken-{rank.rank}.json").write_text(json.dumps(taken))
    agree.on_first(lambda: [empty(scene.step(number) / FILES[4], Path()) for number in (2, 4)], rank.rank)
    with pytest.raises(IntegrityError):
        checkpoints.resume()
    (scene.folder / f"refused-{rank.rank}").touch()
    agree.on_first(lambda: [remove(scene.step(number) / FILES[0], Path()) for number in (2, 4)], rank.rank)
    with pytest.raises(IntegrityError, match="none of the 2 committed steps is whole"):
        checkpoints.resume()
    agree.on_first(lambda: [shutil.rmtree(scene.step(number)) for number in (2, 4)], rank.rank)
    with pytest.raises(IntegrityError, match="none of the 2 committed steps is whole"):
        checkpoints.resume()
    (scene.folder / f"missed-{rank.rank}").touch()


def _damage(scene: Scene, damage: object, name: str) -> None:
    shutil.copytree(scene.step(4), scene.folder / "whole")
    damage(scene.step(4) / name, scene.step(2) / name)  # type: ignore[operator]


def _repair(scene: Scene) -> None:
    shutil.rmtree(scene.step(4))
    (scene.folder / "whole").rename(scene.step(4))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    made = Scene(tmp_path_factory.mktemp("damage"))
    InProcessCluster(2).gang(functools.partial(damage_everything, made), resources=PretrainResources(workers=2))
    return made


@pytest.mark.parametrize("rank", [0, 1])
def test_every_damage_falls_back_on_both_ranks(scene: Scene, rank: int) -> None:
    taken = json.loads((scene.folder / f"taken-{rank}.json").read_text())
    assert taken.pop("no damage nothing") == 4
    assert len(taken) == len(DAMAGES) * len(FILES)
    assert set(taken.values()) == {2}


def test_every_refusal_names_attempt_step_and_file(scene: Scene) -> None:
    refused = scene.events.of("checkpoint_refused")
    for name in FILES:
        found = [text for text in refused if text.startswith(f"attempt a1, step 4, file {name}:")]
        assert len(found) >= len(DAMAGES), name


def test_none_left_is_an_error_on_both_ranks(scene: Scene) -> None:
    assert (scene.folder / "refused-0").exists()
    assert (scene.folder / "refused-1").exists()


def test_steps_of_which_nothing_is_left_are_missed_on_both_ranks(scene: Scene) -> None:
    """Training would begin at step 0 if they were not; that it does before the first commit is checked there too."""
    assert (scene.folder / "missed-0").exists()
    assert (scene.folder / "missed-1").exists()
    assert any("step 4, file manifest.json: " in text for text in scene.events.of("checkpoint_refused"))


def test_a_step_lists_every_file_of_every_rank(scene: Scene) -> None:
    manifest = StepManifest.parse((scene.folder / "whole.json").read_bytes(), "step 2")
    assert {file.path.removeprefix("step-2/") for file in manifest.files} == set(FILES) - {"manifest.json"}
    assert (manifest.world_size, manifest.zero, manifest.samples_seen) == (2, 1, 40)
