"""Mixup's pairs and draws by name: the same images at any grouping, and big_vision's formula on one device."""

import numpy as np
import pytest
import torch
from scipy.stats import beta, kstest

from vitpipe.infra.errors import UsageError
from vitpipe.stages.images.config import AugmentSettings, MixupSettings
from vitpipe.stages.images.keys import uniforms
from vitpipe.stages.images.mixing import mix, partners
from vitpipe.stages.images.train import TrainImages

BATCH = 6
BIG_VISION = {"alpha": 0.2, "pairing": "roll", "per": "batch"}
WAYS = [
    {"alpha": 0.2, "pairing": pairing, "per": per} for pairing in ("neighbours", "roll") for per in ("pair", "batch")
]


def open_train(photos, tmp_path, batch_images=BATCH, **augment):
    settings = AugmentSettings.model_validate({"crop": "none", "flip": False, **augment})
    return TrainImages(photos, "train", 12, settings, 0, tmp_path / "cache", batch_images=batch_images)


@pytest.mark.parametrize("cutmix", [0.0, 1.0])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: f"{way['pairing']}-{way['per']}")
def test_no_grouping_into_micro_batches_or_ranks_matters(photos, tmp_path, way, cutmix):
    train = open_train(photos, tmp_path, mixup=way, cutmix=cutmix)
    whole = train.micro_batch(0, 3 * BATCH)
    for cuts in ([(0, 6), (6, 6), (12, 6)], [(0, 1), (1, 4), (5, 5), (10, 8)], [(n, 1) for n in range(18)]):
        parts = list(train.stream(cuts, threads=2))
        for name in ("images_BCHW", "labels", "positions_B"):
            assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name)), cuts


def test_a_step_is_mixed_as_big_vision_does(photos, tmp_path):
    """utils.get_mixup: a * thing + (1 - a) * roll(thing, 1), with the larger of a Beta share and its rest."""
    mixed = open_train(photos, tmp_path, mixup=BIG_VISION).micro_batch(BATCH, BATCH)
    plain = open_train(photos, tmp_path)
    images = plain.micro_batch(BATCH, BATCH).images_BCHW.double()
    labels = torch.nn.functional.one_hot(plain.micro_batch(BATCH, BATCH).labels, mixed.labels.shape[1]).double()
    share = uniforms(np.array([1]), 4, "mix of a batch", 0)[0, 1]
    own = max(beta.ppf(share, 0.2, 0.2), 1 - beta.ppf(share, 0.2, 0.2))
    assert 0.5 <= own < 0.999, "a share that shows"
    wanted = own * images + (1 - own) * images.roll(1, 0)
    assert (mixed.images_BCHW - wanted).abs().max() <= 0.5 + 1e-9
    torch.testing.assert_close(mixed.labels.double(), own * labels + (1 - own) * labels.roll(1, 0), atol=1e-6, rtol=0)
    other = own * images + (1 - own) * images.roll(-1, 0)
    assert (mixed.images_BCHW - other).abs().max() > 2  # negative control: rolled the other way


def test_partners_stay_within_a_step():
    rolled = AugmentSettings(mixup=BIG_VISION)
    assert partners(np.arange(5, 13), rolled, BATCH).tolist() == [4, 11, 6, 7, 8, 9, 10, 17]
    assert partners(np.arange(4), AugmentSettings(mixup=0.2), BATCH).tolist() == [1, 0, 3, 2]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: f"{way['pairing']}-{way['per']}")
def test_each_pair_or_each_step_draws_a_share_of_the_beta_distribution(way):
    count, batch = 4800, 4
    positions, settings = np.arange(count), AugmentSettings(mixup={**way, "alpha": 0.5})
    labels, images = np.tile(np.eye(2, dtype=np.float32), (count // 2, 1)), np.zeros((count, 3, 1, 1), dtype=np.uint8)
    mix(images, labels, images, 1 - labels, positions, settings, 0, batch)
    own = labels[positions, positions % 2]
    together = {("neighbours", "pair"): 2, ("roll", "pair"): 1}.get((way["pairing"], way["per"]), batch)
    shares = own.reshape(-1, together)
    assert (shares == shares[:, :1]).all() and len(np.unique(own)) > 0.9 * len(shares)
    law = beta(0.5, 0.5)
    assert kstest(shares[:, 0], lambda x: law.cdf(x) - law.cdf(1 - x)).pvalue > 1e-3


def test_what_says_the_same_is_the_same_and_a_step_needs_its_size(photos, tmp_path):
    assert AugmentSettings(mixup={"alpha": 0.2}) == AugmentSettings(mixup=0.2)
    assert AugmentSettings(mixup=BIG_VISION).mixing == MixupSettings(**BIG_VISION)
    assert not AugmentSettings(mixup={**BIG_VISION, "alpha": 0}).mixes
    with pytest.raises(UsageError, match="Cannot mix images with those of their step: its number of images"):
        open_train(photos, tmp_path, None, mixup=BIG_VISION)
    with pytest.raises(ValueError, match="'neighbours' or 'roll'"):
        AugmentSettings(mixup={"alpha": 0.2, "pairing": "flip"})
