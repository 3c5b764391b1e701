"""Foreign weights that changed after they were converted: what a later look at them says."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from foreign_files import huggingface_folder
from inprocess import commit, make_context

from vitpipe.infra.errors import IntegrityError
from vitpipe.stages.artifacts import Weights
from vitpipe.stages.contract import Inputs
from vitpipe.stages.convert.config import ConvertConfig, ConvertResources
from vitpipe.stages.convert.foreign.changes import look
from vitpipe.stages.convert.run import run as convert
from vitpipe.stages.sighting import Sighted


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Weights, Path]:
    """What was converted, and the folder that it was."""
    tmp_path = tmp_path_factory.mktemp("weights")
    huggingface_folder(tmp_path / "hf")
    ctx = make_context(tmp_path, "weights", ConvertResources())
    weights = commit(ctx, convert(config_of(tmp_path / "hf"), Inputs({}), ctx))
    assert isinstance(weights, Weights)
    return weights, tmp_path / "hf"


def config_of(path: Path) -> ConvertConfig:
    return ConvertConfig.model_validate({"source": {"path": str(path)}})


def seen(weights: Weights, path: Path, digests: bool = False, **resources: bool) -> Sighted:
    return look(config_of(path), ConvertResources(**resources), weights, {}, digests)


def flip(path: Path) -> None:
    data, before = bytearray(path.read_bytes()), path.stat()
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000))


CHANGES: list[tuple[str, Callable[[Path], object], str]] = [
    ("config.json other", lambda hf: (hf / "config.json").write_text("{}"), "0 added, 0 gone, 1 changed of 2 files"),
    ("config.json gone", lambda hf: (hf / "config.json").unlink(), "0 added, 1 gone, 0 changed of 2 files"),
    ("a companion more", lambda hf: (hf / "preprocessor_config.json").write_text("{}"), "1 added, 0 gone, 0 changed"),
    ("tensors longer", lambda hf: os.truncate(hf / "model.safetensors", 9), "1 changed"),
    ("a file that says nothing", lambda hf: (hf / "readme.txt").write_text("x"), ""),
]


@pytest.mark.parametrize(("name", "change", "told"), CHANGES, ids=[name for name, *_ in CHANGES])
def test_what_became_of_a_folder_of_weights(
    name: str, change: Callable[[Path], object], told: str, taken: tuple[Weights, Path], tmp_path: Path
) -> None:
    weights, folder = taken
    shutil.copytree(folder, tmp_path / "hf")  # with the times they had
    assert seen(weights, tmp_path / "hf") == Sighted(
        note=f"the source is as it was converted, 2 files of {tmp_path}/hf", is_same=True
    )
    change(tmp_path / "hf")
    found = seen(weights, tmp_path / "hf")
    assert bool(found.changes) == bool(told) and told in "".join(found.changes)
    assert not seen(weights, tmp_path / "hf", trust_source=True).changes


def test_other_numbers_of_one_size_are_hinted_at_and_digests_tell_them(
    taken: tuple[Weights, Path], tmp_path: Path
) -> None:
    weights, folder = taken
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    (moved / "model.safetensors").rename(moved / "vit.safetensors")  # a single file may be called as one likes
    assert not seen(weights, moved / "vit.safetensors", digests=True).changes
    flip(moved / "vit.safetensors")
    hinted, told = seen(weights, moved / "vit.safetensors"), seen(weights, moved / "vit.safetensors", digests=True)
    assert not hinted.changes and hinted.is_loud and "1 of 2 files" in hinted.note
    assert told.by_digest and "1 changed of 2 files" in told.changes[0] and "'model.safetensors'" in told.changes[0]
    shutil.rmtree(moved)
    gone = seen(weights, moved, digests=True)
    assert not gone.changes and gone.is_loud and "not looked at" in gone.note


def test_what_is_damaged_of_the_result_is_not_blamed_on_the_source(taken: tuple[Weights, Path], tmp_path: Path) -> None:
    weights, folder = taken
    run = tmp_path / "run"
    shutil.copytree(str(weights.uri).removeprefix("file://"), run)
    told = run / weights.file("source.json").at
    told.write_bytes(told.read_bytes().replace(b"config.json", b"config.jsom"))
    assert weights.origin is not None
    copied = weights.model_copy(update={"origin": weights.origin.model_copy(update={"uri": f"file://{run}"})})
    with pytest.raises(IntegrityError, match=f"source.json of file://{run}"):
        seen(copied, folder)


def test_earlier_versions_kept_no_times(taken: tuple[Weights, Path]) -> None:
    weights, folder = taken
    without = weights.model_copy(update={"files": tuple(f for f in weights.files if f.path != "source.json")})
    assert seen(without, folder) == Sighted()
