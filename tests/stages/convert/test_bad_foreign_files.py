"""What foreign files may not be, and what is said then: nothing is opened that can run code, nothing is guessed."""

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign_files import google_arrays, huggingface_folder, write_npz
from pydantic import ValidationError
from safetensors.torch import save_file
from tiny_vit import random_state, tiny
from torch import Tensor

from vitpipe.infra.errors import IntegrityError, StorageError, UsageError
from vitpipe.stages.convert.config import ForeignSource
from vitpipe.stages.convert.containers.npz_file import open_npz
from vitpipe.stages.convert.containers.safetensors_file import open_safetensors
from vitpipe.stages.convert.foreign import weights as look_module
from vitpipe.stages.convert.foreign.to_native import native_reader
from vitpipe.stages.convert.foreign.weights import glance, look, reopen

TINY = tiny()


class Armed:
    """Running it would be told by the file it writes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def read_all(tmp_path: Path, path: Path, **fields: Any) -> dict[str, Tensor]:
    foreign = look(ForeignSource.model_validate({"path": str(path), "heads": 4, **fields}), tmp_path / "scratch")
    named, _ = reopen(foreign, tmp_path / "scratch")
    shapes, read = native_reader(named, foreign)
    return {name: torch.from_numpy(read(name)) for name in shapes}


def timm_file(path: Path, **changed: Tensor | None) -> Path:
    state = {**random_state(TINY), **{name.replace("__", "."): tensor for name, tensor in changed.items()}}
    save_file({name: tensor for name, tensor in state.items() if tensor is not None}, path)
    return path


@pytest.mark.parametrize("name", ["model.pt", "model.PTH", "pytorch_model.bin", "last.ckpt"])
def test_a_pickle_is_refused_when_the_recipe_is_read(name: str) -> None:
    with pytest.raises(ValidationError, match=r"can run code, it is not opened.*save_file"):
        ForeignSource(path=f"/weights/{name}")


@pytest.mark.parametrize(
    ("name", "zipped"), [("model.safetensors", False), ("model.safetensors", True), ("model.npz", True)]
)
def test_a_pickle_under_another_name_is_not_opened(tmp_path: Path, name: str, zipped: bool) -> None:
    path, sign = tmp_path / name, tmp_path / "it-ran"
    torch.save({"x": Armed(sign)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UsageError, match=r"can run code|with the pickle"):
        read_all(tmp_path, path)
    assert not sign.exists()


def test_a_folder_of_pickles_says_so(tmp_path: Path) -> None:
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "pytorch_model.bin").write_bytes(pickle.dumps(Armed(tmp_path / "it-ran")))
    with pytest.raises(UsageError, match=r"pytorch_model\.bin: a pickle can run code"):
        read_all(tmp_path, tmp_path / "hf")


def test_object_arrays_are_refused_before_they_are_read(tmp_path: Path) -> None:
    arrays = google_arrays(TINY, random_state(TINY)) | {"extra": np.array([Armed(tmp_path / "it-ran")], dtype=object)}
    with pytest.raises(UsageError, match=r"extra.npy is an array of Python objects"):
        read_all(tmp_path, write_npz(tmp_path / "m.npz", arrays))
    assert not (tmp_path / "it-ran").exists()


def test_integers_are_no_weights(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"member a.npy holds int64, not floating point"):
        open_npz(write_npz(tmp_path / "m.npz", {"a": np.arange(3)}))
    save_file({"a": torch.arange(3)}, tmp_path / "m.safetensors")
    with pytest.raises(UsageError, match="tensor a holds I64, not floating point"):
        open_safetensors([tmp_path / "m.safetensors"])


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.999])
def test_a_cut_file_is_damaged_and_an_empty_one_is_no_file(tmp_path: Path, kind: str, kept: float) -> None:
    path = tmp_path / f"m.{kind}"
    _ = timm_file(path) if kind == "safetensors" else write_npz(path, google_arrays(TINY, random_state(TINY)))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(IntegrityError if kept else UsageError):
        read_all(tmp_path, path)
    if not kept:
        with pytest.raises(UsageError, match="empty"):
            glance(ForeignSource(path=str(path), heads=4))


@pytest.mark.parametrize("compressed", [False, True])
def test_a_flipped_bit_anywhere_in_an_npz_is_found_or_harmless(tmp_path: Path, compressed: bool) -> None:
    arrays = {"a": np.arange(12, dtype=np.float32).reshape(3, 4), "b": np.ones(5, np.float32)}
    data = write_npz(tmp_path / "whole.npz", arrays, compressed=compressed).read_bytes()
    path, found = tmp_path / "flipped.npz", 0
    directory = 8 * data.index(b"PK\x01\x02")  # each bit from here on: it says where all else lies
    for bit in [*range(0, directory, 5), *range(directory, 8 * len(data))]:
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            opened = open_npz(path)
            read = {name: opened.read(name) for name in opened.shapes}
        except (IntegrityError, UsageError):
            found += 1
        else:
            assert all(np.array_equal(read[name], arrays[name]) for name in read.keys() & arrays.keys())
    assert found > 500


def test_a_flipped_bit_of_an_array_is_told_by_its_checksum(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "m.npz", google_arrays(TINY, random_state(TINY)))
    data = bytearray(path.read_bytes())
    at = data.index(random_state(TINY)["cls_token"].numpy().tobytes())
    data[at + 5] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match="CRC"):
        read_all(tmp_path, path)


@pytest.mark.parametrize(
    "header",
    [
        b"[" * 5000,
        b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}',
        b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1]}}',
        b'{"a": 3}',
        b"not json",
    ],
)
def test_a_damaged_safetensors_header(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0\0\0")
    with pytest.raises(IntegrityError, match="damaged"):
        open_safetensors([path])


def test_the_published_digest_is_held_to(tmp_path: Path) -> None:
    path = timm_file(tmp_path / "m.safetensors")
    foreign = look(ForeignSource(path=str(path), heads=4), tmp_path / "scratch")
    (digest,) = (digest for _, digest in foreign.digests)
    read_all(tmp_path, path, sha256=digest.sha256)
    with pytest.raises(IntegrityError, match=f"the tensors have {digest.sha256}"):
        read_all(tmp_path, path, sha256="0" * 64)


def test_a_file_changed_since_it_was_looked_at(tmp_path: Path) -> None:
    path = timm_file(tmp_path / "m.safetensors")
    foreign = look(ForeignSource(path=str(path), heads=4), tmp_path / "scratch")
    timm_file(path, norm__bias=torch.ones(32))
    with pytest.raises(IntegrityError, match="when it was looked at"):
        reopen(foreign, tmp_path / "scratch")


def test_missing_unknown_and_other_tensors_are_listed_with_the_nearest(tmp_path: Path) -> None:
    path = timm_file(
        tmp_path / "m.safetensors", blocks__1__norm2__weight=None, blocks__1__norm3__weight=torch.ones(32),
        norm__bias=torch.ones(31),
    )  # fmt: skip
    with pytest.raises(UsageError) as caught:
        read_all(tmp_path, path)
    assert "- blocks.1.norm2.weight (32) (found instead: blocks.1.norm3.weight)" in str(caught.value)
    assert "+ blocks.1.norm3.weight (32)" in str(caught.value)
    assert "! norm.bias is (31), the model has (32)" in str(caught.value)


def test_another_architecture_is_told_by_what_it_has(tmp_path: Path) -> None:
    save_file({"conv1.weight": torch.zeros(8, 3, 7, 7), "fc.bias": torch.zeros(3)}, tmp_path / "resnet.safetensors")
    with pytest.raises(UsageError, match=r"among its 2 tensors \(conv1.weight, fc.bias\)"):
        read_all(tmp_path, tmp_path / "resnet.safetensors")


def test_a_contradicting_format_is_refused_with_what_was_found(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"as google: its tensors are named as timm names them"):
        read_all(tmp_path, timm_file(tmp_path / "m.safetensors"), format="google")


def test_heads_are_not_guessed(tmp_path: Path) -> None:
    path = timm_file(tmp_path / "m.safetensors")
    with pytest.raises(UsageError, match=r"nothing says its number of attention heads.*Give config.source.heads"):
        read_all(tmp_path, path, heads=None)
    with pytest.raises(
        UsageError, match=r"model of ours: width 32 is not a multiple of heads 3: 32 = 10 x 3 \+ 2\. Name"
    ):
        read_all(tmp_path, path, heads=3)


@pytest.mark.parametrize(("rows", "found"), [
    (12, "position table is of 11 patches, not a square"),
    (15, "position table is of 14 patches, not a square"),
])  # fmt: skip
def test_positions_of_no_square_are_refused(tmp_path: Path, rows: int, found: str) -> None:
    with pytest.raises(UsageError, match=found):
        read_all(tmp_path, timm_file(tmp_path / "m.safetensors", pos_embed=torch.zeros(1, rows, 32)))


def test_another_pooling_or_activation_would_be_another_function(tmp_path: Path) -> None:
    timm_file(tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "vit", "global_pool": "map"}))
    with pytest.raises(UsageError, match="pools by 'map'"):
        read_all(tmp_path, tmp_path)
    huggingface_folder(tmp_path / "hf", hidden_act="relu")
    with pytest.raises(UsageError, match="activation is relu"):
        read_all(tmp_path, tmp_path / "hf")


def test_a_folder_with_a_missing_or_moved_shard(tmp_path: Path) -> None:
    huggingface_folder(tmp_path / "hf", max_shard_size="20KB")
    shards = sorted((tmp_path / "hf").glob("*.safetensors"))
    data = shards[-1].read_bytes()
    shards[-1].write_bytes(shards[0].read_bytes())
    with pytest.raises(IntegrityError, match="stands in"):
        read_all(tmp_path, tmp_path / "hf")
    shards[-1].write_bytes(data)
    read_all(tmp_path, tmp_path / "hf")
    shards[-1].unlink()
    with pytest.raises(UsageError, match="1 of 5 shards are missing"):
        read_all(tmp_path, tmp_path / "hf")


def test_an_index_may_not_leave_its_folder(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../secret.safetensors"}}')
    with pytest.raises(IntegrityError, match="leaves the folder"):
        read_all(tmp_path, tmp_path)


@pytest.mark.parametrize("content", [[], ["notes.txt"], ["a.npz", "b.npz"]])
def test_a_folder_that_is_not_one_set_of_weights(tmp_path: Path, content: list[str]) -> None:
    (tmp_path / "given").mkdir()
    for name in content:
        (tmp_path / "given" / name).write_bytes(b"x")
    with pytest.raises(UsageError, match=r"no tensors there|Name one of them"):
        read_all(tmp_path, tmp_path / "given")


def test_native_settings_of_a_newer_version(tmp_path: Path) -> None:
    timm_file(tmp_path / "model.safetensors")
    (tmp_path / "model.json").write_text('{"schema": 3, "model": {}}')
    with pytest.raises(UsageError, match="written by a newer vitpipe"):
        read_all(tmp_path, tmp_path)


def test_no_room_for_a_copy_is_said_before_it_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look_module.Located, "bytes_elsewhere", lambda self: 10**18)
    with pytest.raises(StorageError, match="have to be copied"):
        read_all(tmp_path, timm_file(tmp_path / "m.safetensors"))


def test_an_npz_with_a_member_twice(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "m.npz", {"a": np.ones(2, np.float32)})
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("a.npy", archive.read("a.npy"))
    with pytest.raises(IntegrityError, match="twice"):
        open_npz(path)


def test_a_model_of_another_family_of_transformers_is_told_by_its_names(tmp_path: Path) -> None:
    state = {"deit.embeddings.patch_embeddings.projection.weight": torch.zeros(32, 3, 8, 8)}
    save_file(state, tmp_path / "deit.safetensors")
    with pytest.raises(UsageError, match=r"among its 1 tensors \(deit\.embeddings"):
        read_all(tmp_path, tmp_path / "deit.safetensors")


def test_what_is_only_assumed_of_the_images_is_said(tmp_path: Path) -> None:
    path = timm_file(tmp_path / "m.safetensors")
    assumed = [look(ForeignSource.model_validate({"path": str(path), "heads": 4, **given}), tmp_path / "scratch").notes
               for given in ({}, {"mean": [0.5] * 3, "std": [0.5] * 3})]  # fmt: skip
    assert [len(notes) for notes in assumed] == [1, 0] and "nothing says how its images" in assumed[0][0]
