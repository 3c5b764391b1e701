"""What a file is by its first bytes: every length of a safetensors header, cut files, and real pickles."""

import io
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vitpipe.infra.errors import IntegrityError, UsageError
from vitpipe.stages.convert.containers.safetensors_file import SafetensorsFile, open_safetensors
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.vit.file_kind import kind_of
from vitpipe.stages.vit.native import read_tensors
from vitpipe.stages.vit.shapes import parameter_shapes

LENGTHS = range(8, 4097)


def file_of(header_bytes: int) -> bytes:
    """A whole file of no tensors, its header padded as the format pads."""
    return header_bytes.to_bytes(8, "little") + b"{}".ljust(header_bytes)


def test_no_length_of_a_header_makes_a_file_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for length in (*LENGTHS, 0x4B50):  # "PK" and zeros
        assert kind_of(file_of(length)[:9]) == "safetensors", length
        if length % 256 == 0x80 or length in (8, 4096, 0x4B50):
            path.write_bytes(file_of(length))
            assert read_tensors(path) == {}, length
            assert open_safetensors([path]).shapes == {}, length


@pytest.mark.parametrize("length", [0x80, 0x180, 0x280, 0x380, 0x480, 0x580])
def test_a_file_cut_anywhere_is_damaged_and_no_pickle(tmp_path: Path, length: int) -> None:
    path, whole = tmp_path / "model.safetensors", file_of(length)
    for kept in (*range(3, 16), length, length + 7):
        path.write_bytes(whole[:kept])
        with pytest.raises(IntegrityError, match="damaged"):
            read_tensors(path)


def old_torch(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def new_torch(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def test_a_pickle_under_the_formats_name_is_refused(tmp_path: Path) -> None:
    path, content = tmp_path / "model.safetensors", {"{": b"{" * 300, "weight": [1.0] * 9}
    for data in (old_torch(content), new_torch(content), *(pickle.dumps(content, way) for way in range(2, 6))):
        path.write_bytes(data)
        with pytest.raises(UsageError, match=r"(?i)it is a pickle"):
            read_tensors(path)


@pytest.mark.parametrize("protocol", [0, 1])
def test_a_pickle_without_a_frame_is_no_tensors_and_not_opened(tmp_path: Path, protocol: int) -> None:
    (tmp_path / "model.safetensors").write_bytes(pickle.dumps({"weight": [1.0] * 99}, protocol))
    with pytest.raises(IntegrityError, match="damaged"):
        read_tensors(tmp_path / "model.safetensors")


@given(
    content=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    ),
    protocol=st.integers(2, 5),
)
def test_no_pickle_is_taken_for_tensors(content: object, protocol: int) -> None:
    assert kind_of(pickle.dumps(content, protocol)[:9]) == "pickle"


def test_a_vit_of_2_to_397_classes_is_tensors(tmp_path: Path) -> None:
    """The headers as `convert` writes them; those of Ti/16 at 224 px have 0x3580 bytes up to 397 classes."""
    ends = set()
    for classes in (2, 10, 37, 100, 101, 397, 398, 1000):
        settings = ModelSettings(variant="Ti/16", image_px=224, classes=classes)
        path = tmp_path / f"{classes}.safetensors"
        shapes = list(parameter_shapes(settings).items())
        with SafetensorsFile(path, shapes, "fp32", {"format": "pt"}):
            pass  # the header is written first
        start = path.read_bytes()[:9]
        assert kind_of(start) == "safetensors", classes
        ends.add(start[0])
    assert ends == {0x80, 0x88}
