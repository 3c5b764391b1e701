"""Casts without torch are torch's, bit by bit; and the detectors of numbers that cannot be written."""

import hashlib
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vitpipe.infra.errors import StageError
from vitpipe.stages.convert.config import Dtype
from vitpipe.stages.convert.containers.hashed_file import HashedFile, pieces
from vitpipe.stages.convert.numbers import checked, stored

LARGEST = np.finfo(np.float32).max


def every_boundary() -> NDArray[np.float32]:
    """Around each of the 2^16 patterns of bf16: exact, just beside, half way and just beside that; and random ones."""
    upper = np.arange(2**16, dtype=np.uint32) << 16
    lower = np.array([0, 1, 0x0FFF, 0x1000, 0x1001, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    drawn = np.random.default_rng(0).integers(0, 2**32, 200_000, np.uint32)
    return np.concatenate([(upper[:, None] | lower).reshape(-1), drawn]).view(np.float32)


@pytest.mark.parametrize(
    ("dtype", "kind"), [("bf16", torch.bfloat16), ("fp16", torch.float16), ("fp32", torch.float32)]
)
def test_casts_are_torchs(dtype: Dtype, kind: torch.dtype) -> None:
    numbers = every_boundary()
    got = stored(numbers, dtype)
    wanted = torch.from_numpy(numbers).to(kind).view(torch.uint8).numpy().view(got.dtype)
    none = np.isnan(numbers)
    bits = np.uint32 if dtype == "fp32" else np.uint16
    assert np.array_equal(got.view(bits)[~none], wanted.view(bits)[~none])
    back = torch.from_numpy(got.view(np.uint8)).view(kind)
    assert np.array_equal(back.isnan().numpy(), none), "what is no number stays none, in whatever bits"


def test_cutting_off_instead_of_rounding_would_be_seen() -> None:
    numbers = every_boundary()
    numbers = numbers[~np.isnan(numbers)]
    cut = (numbers.view(np.uint32) >> 16).astype(np.uint16)
    assert (cut != stored(numbers, "bf16")).mean() > 0.3


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_one_number_that_is_not_finite_is_found(number: float) -> None:
    array = np.full((3, 2**20), LARGEST, np.float32)  # whose sum overflows
    assert checked(lambda name: array, "fp32")("x") is array
    array[2, 2**20 - 1] = number
    with pytest.raises(StageError, match="not finite"):
        checked(lambda name: array, "fp32")("x")


def test_fp16_takes_its_largest_and_no_more() -> None:
    array = np.array([0, -65504, 3], np.float32)
    assert checked(lambda name: array, "fp16")("x") is array
    array[1] = -65536
    with pytest.raises(StageError, match="up to 65536, fp16 ends at 65504"):
        checked(lambda name: array, "fp16")("x")
    assert checked(lambda name: array, "bf16")("x") is array


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0)])
def test_pieces_are_the_numbers_in_row_order(axes: tuple[int, int, int]) -> None:
    array = np.random.default_rng(0).standard_normal((130, 70, 200), np.float32).transpose(axes)
    parts = [bytes(piece) for piece in pieces(array, "fp32")]
    assert len(parts) > 3 and b"".join(parts) == array.tobytes()


def test_the_digest_is_of_all_that_was_written(tmp_path: Path) -> None:
    with closing(HashedFile(tmp_path / "x")) as file:
        for number in range(100):
            file.write(bytes([number]) * 5000)
        digest = file.digest()
    assert digest.bytes == 500_000 and digest.sha256 == hashlib.sha256((tmp_path / "x").read_bytes()).hexdigest()
