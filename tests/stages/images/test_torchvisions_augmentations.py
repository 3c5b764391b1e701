"""RandAugment's operations are torchvision's; Mixup and CutMix keep what torchvision's would, by distribution."""

import re

import numpy as np
import pytest
import torch
from scipy.stats import beta, ks_2samp, kstest
from torchvision.transforms import InterpolationMode, v2

from vitpipe.stages.images.config import FULL_STRENGTH, AugmentSettings
from vitpipe.stages.images.mixing import mix, partners
from vitpipe.stages.images.randaugment.torchvision import OPERATIONS, step
from vitpipe.stages.images.steps import take_steps

MOST = FULL_STRENGTH["torchvision"]
THEIRS = v2.RandAugment(num_magnitude_bins=MOST + 1)
NAMES = {re.sub(r"(?<!^)(?=[XY]$)", "_", name).lower(): name for name in THEIRS._AUGMENTATION_SPACE}
PAIRS, PX = 4000, 32


def varied(name, planes, strength, sign):
    """The planes after an operation; they stay."""
    found, own = planes.copy(), step(name, strength, sign, *planes.shape[1:])
    take_steps(found, [] if own is None else [own])
    return found


def test_the_same_operations_in_the_same_order():
    assert list(OPERATIONS) == list(NAMES)


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_is_torchvisions_at_every_magnitude(name):
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 41, 37), dtype=np.uint8))
    magnitudes, signed = THEIRS._AUGMENTATION_SPACE[NAMES[name]]
    steps = magnitudes(MOST + 1, 41, 37)
    for level in range(MOST + 1):
        for sign in (1.0, -1.0):
            magnitude = 0.0 if steps is None else float(steps[level]) * (sign if signed else 1)
            wanted = THEIRS._apply_image_or_video_transform(
                image, NAMES[name], magnitude, interpolation=InterpolationMode.NEAREST, fill=THEIRS._fill
            )
            found = varied(name, image.numpy(), level / MOST, sign)
            # their magnitudes are rounded to fp32: a grey level, or the pixels that lie on an edge
            other = np.abs(found.astype(int) - wanted.numpy()) > 1
            assert other.mean() < 0.02, (level, sign)


def test_another_magnitude_is_no_rounding():
    """Negative control of the tolerance: the next level differs by more."""
    image = np.random.default_rng(0).integers(0, 256, (3, 41, 37), dtype=np.uint8)
    for name in ("shear_x", "translate_y", "rotate", "brightness", "solarize"):
        one, next_one = (varied(name, image, level / MOST, 1.0).astype(int) for level in (20, 22))
        assert (np.abs(one - next_one) > 1).mean() > 0.02, name


def test_what_is_quicker_on_bytes_has_the_pixels_of_torchvisions_own_function():
    """To the bit, where both are given the same magnitude; an odd size and the smallest among them."""
    affine = {"angle": 0.0, "scale": 1.0, "shear": [0.0, 0.0]}
    for height, width in ((41, 37), (16, 16), (3, 3), (1, 1), (300, 260)):
        planes = np.random.default_rng(height).integers(0, 256, (3, height, width), dtype=np.uint8)
        planes[:, : height // 2] //= 64
        image, x = torch.from_numpy(planes), int(150 / 331 * width * 0.7)
        for name, theirs in {
            "sharpness": v2.functional.adjust_sharpness_image(image, 1 - 0.9 * 0.7),
            "color": v2.functional.adjust_saturation_image(image, 1 - 0.9 * 0.7),
            "contrast": v2.functional.adjust_contrast_image(image, 1 - 0.9 * 0.7),
            "brightness": v2.functional.adjust_brightness_image(image, 1 - 0.9 * 0.7),
            "autocontrast": v2.functional.autocontrast_image(image),
            "solarize": v2.functional.solarize_image(image, 255 * (1 - 0.7)),
            "rotate": v2.functional.rotate_image(image, -30 * 0.7, interpolation=InterpolationMode.NEAREST),
            "equalize": v2.functional.equalize_image(image),
            "translate_x": v2.functional.affine_image(image, translate=[-x, 0], **affine),
        }.items():
            assert np.array_equal(varied(name, planes, 0.7, -1.0), theirs.numpy()), (name, height)


def mixed(images, labels, settings):
    """Mix all with their neighbours, in place."""
    positions = np.arange(len(images))
    others = partners(positions, settings, 1)
    mix(images, labels, images[others], labels[others], positions, settings, 0, 1)


def kept_shares(**settings):
    """Share of each image that is its own after mixing, as its label has it: black and white pairs of two classes."""
    images = np.zeros((2 * PAIRS, 3, PX, PX), dtype=np.uint8)
    images[1::2] = 255
    labels = np.tile(np.eye(2, dtype=np.float32), (PAIRS, 1))
    mixed(images, labels, AugmentSettings(**settings))
    own = labels[np.arange(2 * PAIRS), np.arange(2 * PAIRS) % 2]
    white = images[1::2, 0].reshape(PAIRS, -1).mean(axis=1) / 255
    assert np.abs(white - own[1::2]).max() < 0.01  # the label says what the picture shows
    assert (own[::2] == own[1::2]).all()
    return own[::2]


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_mixup_keeps_the_larger_part_of_a_beta_share(alpha):
    share = beta(alpha, alpha)
    found = kept_shares(mixup=alpha)
    assert kstest(found, lambda x: share.cdf(x) - share.cdf(1 - x)).pvalue > 1e-3
    wrong = beta(2 * alpha + 1, 2 * alpha + 1)
    assert kstest(found, lambda x: wrong.cdf(x) - wrong.cdf(1 - x)).pvalue < 1e-6  # negative control


def test_cutmix_keeps_what_torchvisions_box_leaves():
    theirs = v2.CutMix(alpha=1.0, num_classes=2)
    torch.manual_seed(0)

    class Larger:
        """Their share, the larger part of it, as ours takes it."""

        def sample(self, shape):
            drawn = torch.distributions.Beta(1.0, 1.0).sample(shape)
            return torch.maximum(drawn, 1 - drawn)

    theirs._dist = Larger()
    flat = [torch.zeros(2, 3, 4 * PX, 4 * PX)]  # finer than ours, so that their rounding hardly shows
    wanted = np.array([theirs.make_params(flat)["lam_adjusted"] for _ in range(PAIRS)])
    found = kept_shares(cutmix=1.0)
    assert abs(found.mean() - wanted.mean()) < 0.015 and ks_2samp(found, wanted).statistic < 0.06
    assert ks_2samp(kept_shares(cutmix=5.0), wanted).statistic > 0.1  # negative control


def test_with_both_each_pair_has_one_of_them():
    images = np.zeros((2 * PAIRS, 8, 8, 3), dtype=np.uint8)
    images[1::2] = 255
    labels = np.tile(np.eye(2, dtype=np.float32), (PAIRS, 1))
    mixed(images, labels, AugmentSettings(mixup=1.0, cutmix=1.0))
    blended = ((images > 0) & (images < 255)).reshape(PAIRS, -1).any(axis=1)
    assert 0.45 < blended.mean() < 0.55
