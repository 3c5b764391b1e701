"""Google's files as they are written: what NumPy reads, the digest, and what happens when it cannot be done."""

import hashlib
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

from infra.errors import StorageError
from stages.convert import hashed_file
from stages.convert.npz_file import NpzFile

SHAPES = [("a/kernel", (300, 17)), ("b", (3,)), ("scalar", ())]


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(tuple(reversed(shape)), generator=generator).T for name, shape in SHAPES[:1]} | {
        name: torch.randn(shape, generator=generator) for name, shape in SHAPES[1:]
    }


def write(path: Path, dtype: torch.dtype) -> str:
    with NpzFile(path, SHAPES, dtype) as file:
        for name, tensor in tensors().items():
            file.add(name, tensor)
        digest = file.digest()
    assert digest.bytes == path.stat().st_size
    return digest.sha256


@pytest.mark.parametrize(
    ("dtype", "kind", "view"),
    [(torch.float32, "<f4", "<f4"), (torch.float16, "<f2", "<f2"), (torch.bfloat16, "V2", ml_dtypes.bfloat16)],
)
def test_numpy_reads_it_and_the_digest_is_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, kind: str, view: Any
) -> None:
    monkeypatch.setattr(hashed_file, "_PIECE_NUMBERS", 40)  # less than one tensor, and no multiple of its rows
    sha256 = write(tmp_path / "x.npz", dtype)
    assert sha256 == hashlib.sha256((tmp_path / "x.npz").read_bytes()).hexdigest() == write(tmp_path / "y.npz", dtype)
    with np.load(tmp_path / "x.npz", allow_pickle=False) as arrays:
        assert arrays.files == [name for name, _ in SHAPES]
        for name, tensor in tensors().items():
            assert arrays[name].dtype == np.dtype(kind)
            wanted = tensor.to(dtype).float().numpy()
            assert np.array_equal(arrays[name].view(view).astype(np.float32), wanted)


def test_arrays_in_another_order_or_missing_are_refused(tmp_path: Path) -> None:
    with NpzFile(tmp_path / "x.npz", SHAPES, torch.float32) as file, pytest.raises(ValueError, match="a/kernel"):
        file.add("b", torch.zeros(3))
    with NpzFile(tmp_path / "x.npz", SHAPES, torch.float32) as file, pytest.raises(ValueError, match="3 arrays"):
        file.digest()


def test_a_disk_that_fills_up_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def write(self, data: object) -> int:
            raise OSError(28, "No space left on device")

        def close(self) -> None:
            pass

    with pytest.raises(StorageError, match="Make room"), NpzFile(tmp_path / "x.npz", SHAPES, torch.float32) as file:
        file._file._file.close()
        monkeypatch.setattr(file._file, "_file", Full())
        file.add("a/kernel", torch.zeros(300, 17))
