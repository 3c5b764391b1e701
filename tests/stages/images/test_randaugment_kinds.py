"""RandAugment's kinds have each their original's operations, order, ranges and draws."""

import hashlib
import json
import math
import random
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import timm.data.auto_augment as timms
from PIL import Image
from sklearn.datasets import load_sample_images

from vitpipe.stages.images import steps as steps_module
from vitpipe.stages.images.config import STRONGEST, RandAugmentSettings
from vitpipe.stages.images.keys import uniforms
from vitpipe.stages.images.numpy_steps import What
from vitpipe.stages.images.randaugment import big_vision, timm, torchvision
from vitpipe.stages.images.randaugment.kinds import KINDS, draws_for, steps_for
from vitpipe.stages.images.steps import Step, take_steps

FOLDER = Path(__file__).parent / "originals"
ORIGINAL: dict[str, list[str]] = json.loads((FOLDER / "randaugment_of_big_vision.json").read_text())
"""Digests of what big_vision's own functions make, each at two draws; the script beside it made them."""
CENTRES = ((10.5 / 96, 70.5 / 80), (48.5 / 96, 40.5 / 80))
LOTS = 6000
PILLOWS = {What.BILINEAR: Image.Resampling.BILINEAR, What.BICUBIC: Image.Resampling.BICUBIC}


def snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name.replace("AutoC", "Autoc")).lower()


def rand_augment(planes: np.ndarray, settings: RandAugmentSettings, draws: np.ndarray) -> np.ndarray:
    varied = np.array(planes, order="C")
    take_steps(varied, steps_for(settings, draws[None], *planes.shape[1:])[0])
    return varied


def photographs() -> list[np.ndarray]:
    """The middle 96 x 80 pixels of scikit-learn's two, as planes."""
    wholes = load_sample_images().images
    corners = [((whole.shape[0] - 96) // 2, (whole.shape[1] - 80) // 2) for whole in wholes]
    cuts = [whole[y : y + 96, x : x + 80] for whole, (y, x) in zip(wholes, corners, strict=True)]
    return [np.ascontiguousarray(cut.transpose(2, 0, 1)) for cut in cuts]


def taken(planes: np.ndarray, step: Step) -> np.ndarray:
    """The planes after a step; they stay."""
    varied = planes.copy()
    take_steps(varied, [step])
    return varied


@pytest.fixture(params=["extension", "numpy"])
def by(request, monkeypatch):
    """Steps are taken by either."""
    if request.param == "numpy":
        monkeypatch.setattr(steps_module, "loaded_extension", lambda: None)
    return request.param


def digest(name: str, magnitude: float, draws: tuple[float, float]) -> str:
    found = hashlib.sha256()
    for planes in photographs():
        varied = taken(planes, big_vision.step(snake(name), magnitude / 10, draws, *planes.shape[1:]))
        found.update(varied.transpose(1, 2, 0).tobytes())
    return found.hexdigest()[:16]


@pytest.mark.parametrize("case", ORIGINAL)
def test_each_of_big_visions_operations_has_its_pixels(case, by):
    name, magnitude = case.split()
    draws = CENTRES if name == "Cutout" else ((0.1, 0), (0.9, 0))
    assert [digest(name, float(magnitude), drawn) for drawn in draws] == ORIGINAL[case]


def test_another_magnitude_or_sign_has_other_pixels():
    """Negative control: the digests tell a tenth of the scale apart."""
    for name in ("Rotate", "ShearX", "TranslateY", "Color", "Sharpness", "Brightness", "Contrast", "Posterize"):
        assert digest(name, 4, (0.1, 0)) != ORIGINAL[f"{name} 5"][0], name
    assert digest("Rotate", 15, (0.9, 0)) != ORIGINAL["Rotate 15"][0]


def test_big_vision_has_its_sixteen_in_its_order():
    source = "AutoContrast Equalize Invert Rotate Posterize Solarize Color Contrast Brightness Sharpness ShearX ShearY"
    names = [*source.split(), "TranslateX", "TranslateY", "Cutout", "SolarizeAdd"]
    assert list(big_vision.OPERATIONS) == [snake(name) for name in names]


@pytest.mark.parametrize("increasing", [False, True])
def test_each_of_timms_operations_has_its_pixels(increasing, by, monkeypatch):
    ours = timm.INCREASING if increasing else timm.OPERATIONS
    theirs = timms._RAND_INCREASING_TRANSFORMS if increasing else timms._RAND_TRANSFORMS
    planes = photographs()[0]
    image = Image.fromarray(planes.transpose(1, 2, 0))
    assert list(ours) == [snake(name.removesuffix("Increasing").removesuffix("Rel")) for name in theirs]
    for (name, operation), their_name in zip(ours.items(), theirs, strict=True):
        for magnitude in (0, 3, 7, 10):
            if name == "posterize" and magnitude == (10 if increasing else 0):
                continue  # 0 bits, which Pillow refuses to timm since its version 13
            for sign, resample in ((1.0, timm.FILTERS[0]), (-1.0, timm.FILTERS[1])):
                monkeypatch.setattr(random, "random", lambda sign=sign: 0.1 if sign > 0 else 0.9)
                monkeypatch.setattr(random, "choice", lambda given, chosen=PILLOWS[resample]: chosen)
                wanted = timms.AugmentOp(their_name, prob=1.0, magnitude=magnitude)(image)
                drawn = timm.Drawn(sign, resample, *planes.shape[1:])
                found = taken(planes, operation(magnitude / 10, drawn)).transpose(1, 2, 0)
                assert np.array_equal(found, np.asarray(wanted)), (name, magnitude, sign)
    signs = (ours["shear_x"](0.3, timm.Drawn(sign, timm.FILTERS[0], 96, 80)) for sign in (1.0, -1.0))
    assert len({taken(planes, step).tobytes() for step in signs}) == 2  # negative control


def test_timms_magnitudes_have_its_spread():
    random.seed(0)
    settings = RandAugmentSettings(kind="timm", magnitude=9, magnitude_std=0.5)
    found = np.array([timm.magnitude(settings, u) for u in uniforms(np.arange(LOTS), 1, "noise")[:, 0].tolist()])
    theirs = np.clip([random.gauss(9, 0.5) for _ in range(LOTS)], 0, 10)
    assert abs(found.mean() - theirs.mean()) < 0.03 and abs(found.std() - theirs.std()) < 0.02
    assert found.max() == 10
    assert timm.magnitude(RandAugmentSettings(kind="timm", magnitude=9), 0.0) == 9


@pytest.mark.parametrize("kind", KINDS)
def test_operations_and_signs_are_drawn_evenly(kind, monkeypatch):
    """And timm's layers are skipped half of the time; a draw of which nobody knows is a mistake of the table."""
    module = {"big_vision": big_vision, "timm": timm, "torchvision": torchvision}[kind]
    counts = dict.fromkeys(module.OPERATIONS, 0)
    signs, filters = [], []

    def count(name, level, drawn, *size):
        counts[name] += 1
        signs.append((drawn[0] < 0.5 if kind == "big_vision" else drawn > 0) if kind != "timm" else drawn.sign > 0)
        filters.append(kind == "timm" and drawn.resample == timm.FILTERS[0])
        return None

    if kind == "timm":
        monkeypatch.setattr(timm, "OPERATIONS", {name: partial(count, name) for name in counts})
    else:
        monkeypatch.setattr(module, "step", count)
    settings = RandAugmentSettings(kind=kind, layers=2, magnitude=9)
    steps_for(settings, uniforms(np.arange(LOTS), draws_for(settings), "randaugment", 0), 1, 1)
    total = sum(counts.values())
    assert abs(total - 2 * LOTS * (0.5 if kind == "timm" else 1)) < 4.5 * math.sqrt(LOTS)
    expected = total / len(counts)
    assert all(abs(count - expected) < 4.5 * math.sqrt(expected) for count in counts.values()), counts
    assert abs(np.mean(signs) - 0.5) < 4.5 * 0.5 / math.sqrt(total)
    assert kind != "timm" or abs(np.mean(filters) - 0.5) < 4.5 * 0.5 / math.sqrt(total)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", [1, 2, 3, 24])
def test_every_operation_takes_any_size_and_the_ends_of_its_scale(kind, side):
    planes = np.random.default_rng(0).integers(40, 200, (3, side, side), dtype=np.uint8)
    before, places = planes.copy(), (np.arange(16) + 0.5) / 16
    for magnitude in (0, STRONGEST[kind]):
        settings = RandAugmentSettings(kind=kind, layers=1, magnitude=magnitude)
        varied = set()
        for choice in places:
            draws = np.array([choice, 0.7, 0.2, 0.6, 0.5][: draws_for(settings)])
            found = rand_augment(planes, settings, draws)
            assert found.shape == planes.shape and found.dtype == np.uint8
            varied.add(found.tobytes())
        assert side < 24 or len(varied) > (6 if magnitude else 2)
    assert np.array_equal(planes, before)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"magnitude": 31}, "magnitude 31 is beyond torchvision's scale: full strength is 30"),
        ({"kind": "timm", "magnitude": 11}, "magnitude 11 is beyond timm's scale: full strength is 10"),
        ({"kind": "big_vision", "magnitude": 101}, "less than or equal to 100"),
        ({"kind": "big_vision", "increasing": True}, "magnitude_std and increasing belong to kind timm"),
        ({"magnitude_std": 0.5}, "belong to kind timm; torchvision has no such choice"),
        ({"kind": "deit"}, "big_vision"),
        ({"magnitude": -1}, "greater than or equal to 0"),
    ],
)
def test_what_a_kind_does_not_know_is_refused(asked, said):
    with pytest.raises(ValueError, match=said):
        RandAugmentSettings.model_validate(asked)
    assert RandAugmentSettings(kind="big_vision", magnitude=15).magnitude == 15
