"""Squares of a batch are the same whoever makes them: any threads and parts, our extension, or torch and numpy."""

import ctypes
import subprocess
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.stages.images.jpegs import needs_extension
from vitpipe.stages.images import augment as augment_module
from vitpipe.stages.images import (
    crops,
    cuts,
    decoded_split,
    extension,
    extension_proof,
    mixing,
    native,
    numpy_steps,
    steps,
    train,
)
from vitpipe.stages.images.config import AugmentSettings
from vitpipe.stages.images.crops import Box
from vitpipe.stages.images.cuts import Cuts
from vitpipe.stages.images.native import compilation
from vitpipe.stages.images.numpy_steps import What
from vitpipe.stages.images.pixel_source import Files
from vitpipe.stages.images.train import TrainImages

PX = 24
KINDS = ({"kind": "torchvision"}, {"kind": "big_vision", "magnitude": 15}, {"kind": "timm", "magnitude_std": 0.5})
USERS = (augment_module, cuts, mixing, steps)


@contextmanager
def without_extension():
    """As where it is not built."""
    with ExitStack() as stack:
        for user in USERS:
            stack.enter_context(mock.patch.object(user, "loaded_extension", lambda: None))
        yield


class Pictures:
    """Pixels that nobody has to decode."""

    def __init__(self, pixels):
        self.pixels = pixels

    def part(self, number, box):
        return box.of(self.pixels[number])

    def files(self, numbers_B):
        return Files(*np.zeros((2, len(numbers_B)), dtype=np.int64), [])


@needs_extension
@settings(deadline=None, max_examples=60)
@given(data=st.data(), antialias=st.booleans(), flip=st.booleans())
def test_any_part_of_any_size_is_resized_as_torch_does(data, antialias, flip):
    side = st.integers(1, 70)
    height, width, tall, wide, square = (data.draw(side) for _ in range(5))
    rows, columns = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    top, left = data.draw(st.integers(0, height - rows)), data.draw(st.integers(0, width - columns))
    corner = data.draw(st.tuples(st.integers(-4, tall), st.integers(-4, wide)))
    pixels = np.random.default_rng(rows).integers(0, 256, (height, width, 3), dtype=np.uint8)
    one = [np.array([row]) for row in ((height, width), Box(top, left, rows, columns), (tall, wide), corner)]
    wanted = Cuts(*one, np.array([flip]), antialias)
    found = np.full((2, 1, 3, square, square), 7, dtype=np.uint8)
    for to, loaded in zip(found, (extension.loaded_extension, lambda: None), strict=True):
        with mock.patch.object(cuts, "loaded_extension", loaded):
            cuts.begin(Pictures([pixels]), np.array([0]), wanted, to)(slice(None))
    assert np.array_equal(*found)


@needs_extension
@pytest.mark.parametrize("by_inception", [False, True])
def test_boxes_are_those_of_the_definition(by_inception):
    shapes = np.random.default_rng(0).integers(1, 700, (4000, 2))
    positions, least = np.arange(4000), 0.05 if by_inception else 0.08
    choose = crops.inception if by_inception else crops.random_resized
    found = augment_module.boxes(shapes, positions, 1, by_inception, None)
    for shape, tries, box in zip(shapes.tolist(), crops.crop_tries(positions, 1), found.tolist(), strict=True):
        assert Box(*box) == choose(*shape, least, tries)


class PlainSteps(extension.Extension):
    """The steps as a CPU without vectors has them."""

    def __init__(self, path):
        library = ctypes.CDLL(str(path))
        self._steps, self._mix = library.vitpipe_steps, library.vitpipe_mix
        self._steps.argtypes = [ctypes.c_void_p, *[ctypes.c_size_t] * 2, ctypes.c_void_p, ctypes.c_size_t]
        self._mix.argtypes = [*[ctypes.c_void_p] * 2, ctypes.c_size_t, ctypes.c_double]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder, library = Path(native.__file__).parent, tmp_path_factory.mktemp("plain") / "steps.so"
    sources = [folder / f"{name}.c" for name in ("steps", "colours", "moves", "shifts", "sharpen", "places", "mix")]
    flags = [flag for flag in compilation._FLAGS if flag != "-O3"]
    subprocess.run(["cc", *flags, "-O1", "-DPLAIN", *sources, "-o", library, "-lm"], check=True)
    return PlainSteps(library)


@needs_extension
def test_code_without_vectors_has_the_same_pixels(plain):
    extension_proof.compare_steps(plain)
    for share in (0.5, 0.5 + 2**-30, 0.73, 1.0):
        found, by_vectors, other = (np.ascontiguousarray(n.astype(np.uint8)) for n in np.mgrid[:256, :3, :256])
        by_vectors[...] = found
        plain.mix(found, other, share)
        extension.loaded_extension().mix(by_vectors, other, share)
        assert np.array_equal(found, by_vectors)


@needs_extension
@settings(deadline=None, max_examples=60)
@given(
    what=st.sampled_from([What.BILINEAR, What.BICUBIC]),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    slope=st.sampled_from([0.0, 1e-12, 0.3, -0.3]) | st.floats(-2, 2),
    shift=st.sampled_from([0.0, 0.5, 3.0, -1e-13]) | st.floats(-45, 45),
    down=st.booleans(),
)
def test_pixels_shifted_along_rows_or_columns_are_those_of_the_definition(plain, what, size, slope, shift, down):
    matrix = (1, 0, 0, slope, 1, shift) if down else (1, slope, shift, 0, 1, 0)
    planes = np.random.default_rng(0).integers(0, 256, (3, *size), dtype=np.uint8)
    wanted, rows = planes.copy(), np.array([steps.packed(steps.Step(what, numbers=matrix, fill=9))], dtype=steps.STEP)
    numpy_steps.take(wanted, what, numpy_steps.Program.PILLOW, matrix, None, 9)
    for by in (plain, extension.loaded_extension()):
        found = planes.copy()
        by.steps(found, rows)
        assert np.array_equal(found, wanted)


@needs_extension
@settings(deadline=None, max_examples=60)
@given(share=st.floats(0.5, 1) | st.sampled_from([0.5, 0.75, 1.0, 0.5 + 2**-30, 1 - 2**-12, 201 / 256]))
def test_every_pair_of_levels_is_blended_to_the_bit(share):
    one, other = (np.ascontiguousarray(levels.astype(np.uint8)) for levels in np.mgrid[:256, :256])
    wanted = np.rint(share * one + (1 - share) * other)
    extension.loaded_extension().mix(one, other, share)
    assert np.array_equal(one, wanted)


@settings(deadline=None, max_examples=25)
@given(
    data=st.data(),
    threads=st.integers(1, 5),
    part=st.integers(1, 9),
    crop=st.sampled_from(["random_resized", "inception", "resmall", "area_small", "pad", "none"]),
    varied=st.sampled_from([None, *KINDS]),
    mixup=st.sampled_from([0.0, 0.2]),
    kept=st.booleans(),
)
def test_bits_are_equal_at_any_threads_and_parts(
    photos, tmp_path_factory, data, threads, part, crop, varied, mixup, kept
):
    augment = AugmentSettings.model_validate(
        {"crop": crop, "antialias": crop != "inception", "randaugment": varied, "mixup": mixup, "cutmix": mixup}
    )
    edges = sorted(data.draw(st.sets(st.integers(1, 17), max_size=4)) | {0, 18})
    ranges = [(start, end - start) for start, end in pairwise(edges)]
    with mock.patch.object(decoded_split, "DECODED_BYTES", 10**9 if kept else 0):
        open_train = TrainImages(photos, "train", PX, augment, 3, tmp_path_factory.getbasetemp() / "cuts")
        whole = open_train.micro_batch(0, 18)
        with mock.patch.object(train, "PART_PIXELS", part * PX**2):
            batches = list(open_train.stream(ranges, threads))
        assert torch.equal(torch.cat([batch.images_BCHW for batch in batches]), whole.images_BCHW)
        assert torch.equal(torch.cat([batch.labels for batch in batches]), whole.labels)
        with without_extension():
            assert torch.equal(open_train.micro_batch(0, 18).images_BCHW, whole.images_BCHW)
    other = TrainImages(photos, "train", PX, augment, 4, tmp_path_factory.getbasetemp() / "cuts").micro_batch(0, 18)
    assert crop == "none" or not torch.equal(other.images_BCHW, whole.images_BCHW)  # negative control: another seed
