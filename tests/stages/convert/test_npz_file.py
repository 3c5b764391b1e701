"""Google's files as they are written: what NumPy reads, the digest, and what happens when it cannot be done."""

import hashlib
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from vitpipe.infra.errors import StorageError
from vitpipe.stages.convert.config import Dtype
from vitpipe.stages.convert.containers import hashed_file
from vitpipe.stages.convert.containers.npz_file import NpzFile

SHAPES = [("a/kernel", (300, 17)), ("b", (3,)), ("scalar", ())]


def arrays_to_write() -> dict[str, NDArray[np.float32]]:
    draw = np.random.default_rng(0)
    return {name: draw.standard_normal(tuple(reversed(shape)), np.float32).T for name, shape in SHAPES[:1]} | {
        name: np.array(draw.standard_normal(shape, np.float32)) for name, shape in SHAPES[1:]
    }


def write(path: Path, dtype: Dtype) -> str:
    with NpzFile(path, SHAPES, dtype) as file:
        for name, array in arrays_to_write().items():
            file.add(name, array)
        digest = file.digest()
    assert digest.bytes == path.stat().st_size
    return digest.sha256


@pytest.mark.parametrize(
    ("dtype", "kind", "view"),
    [("fp32", "<f4", "<f4"), ("fp16", "<f2", "<f2"), ("bf16", "V2", ml_dtypes.bfloat16)],
)
def test_numpy_reads_it_and_the_digest_is_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: Dtype, kind: str, view: Any
) -> None:
    monkeypatch.setattr(hashed_file, "_PIECE_NUMBERS", 40)  # less than one tensor, and no multiple of its rows
    sha256 = write(tmp_path / "x.npz", dtype)
    assert sha256 == hashlib.sha256((tmp_path / "x.npz").read_bytes()).hexdigest() == write(tmp_path / "y.npz", dtype)
    with np.load(tmp_path / "x.npz", allow_pickle=False) as arrays:
        assert arrays.files == [name for name, _ in SHAPES]
        for name, array in arrays_to_write().items():
            assert arrays[name].dtype == np.dtype(kind)
            assert np.array_equal(arrays[name].view(view), array.astype(view))


def test_arrays_in_another_order_or_missing_are_refused(tmp_path: Path) -> None:
    with NpzFile(tmp_path / "x.npz", SHAPES, "fp32") as file, pytest.raises(ValueError, match="a/kernel"):
        file.add("b", np.zeros(3, np.float32))
    with NpzFile(tmp_path / "x.npz", SHAPES, "fp32") as file, pytest.raises(ValueError, match="3 arrays"):
        file.digest()


def test_a_disk_that_fills_up_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def write(self, data: object) -> int:
            raise OSError(28, "No space left on device")

        def close(self) -> None:
            pass

    with pytest.raises(StorageError, match="Make room"), NpzFile(tmp_path / "x.npz", SHAPES, "fp32") as file:
        file._file._file.close()
        monkeypatch.setattr(file._file, "_file", Full())
        file.add("a/kernel", np.zeros((300, 17), np.float32))
