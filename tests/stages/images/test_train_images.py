"""Training batches are a pure function of position."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vitpipe.infra.errors import UsageError
from vitpipe.stages.images import decoded_split
from vitpipe.stages.images.config import AugmentSettings
from vitpipe.stages.images.train import TrainImages

FULL = {"crop": "random_resized", "randaugment": {"layers": 2, "magnitude": 15}, "mixup": 0.5, "cutmix": 1.0}
RECIPES = [
    {"crop": "none", "flip": False},
    {"crop": "resize", "flip": True},
    {"crop": "resmall"},
    {"crop": "inception", "antialias": False},
    {"crop": "pad", "pad_px": 3},
    {"crop": "random_resized", "cutmix": 1.0},
    FULL,
]


def open_train(photos, tmp_path, recipe, seed=0, **kwargs):
    augment = AugmentSettings.model_validate(recipe)
    return TrainImages(photos, "train", 12, augment, seed, tmp_path / "cache", **kwargs)


def same(one, other) -> bool:
    fields = ("images_BCHW", "labels", "weights_B", "positions_B")
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in fields)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: "-".join(recipe))
def test_grouping_threads_and_memory_do_not_matter(photos, tmp_path, recipe, monkeypatch):
    train = open_train(photos, tmp_path, recipe)
    whole = train.micro_batch(3, 37)
    assert whole.images_BCHW.shape == (37, 3, 12, 12) and whole.images_BCHW.dtype == torch.uint8
    cut = list(train.stream([(3, 1), (4, 2), (6, 13), (19, 21)], threads=3, prefetch=2))
    for name in ("images_BCHW", "labels", "positions_B"):
        assert torch.equal(torch.cat([getattr(batch, name) for batch in cut]), getattr(whole, name))
    monkeypatch.setattr(decoded_split, "DECODED_BYTES", 0)
    assert same(open_train(photos, tmp_path, recipe).micro_batch(3, 37), whole)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_together_see_every_image_once_an_epoch(photos, tmp_path, world_size):
    train = open_train(photos, tmp_path, {"crop": "none", "flip": False})
    seen = []
    for rank in range(world_size):
        micro = [(start, 1) for start in range(train.num_images)][rank::world_size]
        seen += [batch.images_BCHW.numpy().tobytes() for batch in train.stream(micro, threads=2)]
    assert len(set(seen)) == train.num_images


def test_labels_follow_their_images(photos, tmp_path):
    train = open_train(photos, tmp_path, {"crop": "none", "flip": False})
    first = {}
    for epoch in range(2):
        batch = train.micro_batch(epoch * train.num_images, train.num_images)
        pairs = {i.numpy().tobytes(): int(label) for i, label in zip(batch.images_BCHW, batch.labels, strict=True)}
        assert pairs == (first or pairs)
        first = pairs
    assert sorted(first.values()) == sorted(train.labels.tolist())


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keep=st.sets(st.integers(0, 15), min_size=1))
def test_a_subset_is_an_order_of_its_own(photos, tmp_path, keep):
    numbers = np.array(sorted(keep))
    train = open_train(photos, tmp_path, {"crop": "none", "flip": False}, keep=numbers)
    whole = open_train(photos, tmp_path, {"crop": "none", "flip": False})
    assert train.num_images == len(keep)
    assert train.labels.tolist() == whole.labels[numbers].tolist()
    batch = train.micro_batch(0, len(keep))
    assert len({image.numpy().tobytes() for image in batch.images_BCHW}) == len(keep)


def test_seeds_differ_and_epochs_are_augmented_anew(photos, tmp_path):
    train = open_train(photos, tmp_path, {"crop": "random_resized"})
    other = open_train(photos, tmp_path, {"crop": "random_resized"}, seed=1)
    assert not same(train.micro_batch(0, 8), other.micro_batch(0, 8))
    count = train.num_images
    images = {image.numpy().tobytes() for image in train.micro_batch(0, 3 * count).images_BCHW}
    assert len(images) > 2 * count


def test_mixed_labels_are_shares_of_both(photos, tmp_path):
    plain = open_train(photos, tmp_path, {"crop": "none", "flip": False}).micro_batch(0, 18)
    for recipe in ({"mixup": 0.8}, {"cutmix": 1.0}):
        mixed = open_train(photos, tmp_path, {"crop": "none", "flip": False, **recipe}).micro_batch(0, 18)
        assert torch.allclose(mixed.labels.sum(dim=1), torch.ones(18))
        own = mixed.labels[torch.arange(18), plain.labels]
        assert (own >= 0.5 - 1e-6).all()
        assert not torch.equal(mixed.images_BCHW, plain.images_BCHW)
        pair = plain.images_BCHW.long().reshape(9, 2, -1).sum(dim=1)
        assert (mixed.images_BCHW.long().reshape(9, 2, -1).sum(dim=1) - pair).abs().max() <= 1  # rounding at most


def test_multi_hot_labels_on_request(photos, tmp_path):
    batch = open_train(photos, tmp_path, {"crop": "none"}, multi_hot=3).micro_batch(0, 4)
    assert batch.labels.shape == (4, 3) and batch.labels.dtype == torch.float32
    assert (batch.labels.sum(dim=1) == 1).all()


def test_an_unknown_split_names_those_there_are(photos, tmp_path):
    with pytest.raises(UsageError, match=r"'val'.*test \(\d+ images\), train \(\d+ images\)"):
        TrainImages(photos, "val", 12, AugmentSettings(), 0, tmp_path)
    with pytest.raises(UsageError, match="0 shares were given"):
        TrainImages((photos, photos), "train", 12, AugmentSettings(), 0, tmp_path)
