"""Evaluation sees each image once, at any number of ranks."""

import numpy as np
import pytest
import torch

from vitpipe.stages.images.evaluate import EvalImages


@pytest.mark.parametrize("batch_images", [1, 4, 100])
@pytest.mark.parametrize("world_size", [1, 2, 3, 30])
def test_each_image_exactly_once_in_order(photos, tmp_path, world_size, batch_images):
    images = EvalImages(photos, "train", 12, "squash", tmp_path)
    batches = [b for rank in range(world_size) for b in images.batches(batch_images, rank, world_size)]
    positions = torch.cat([batch.positions_B for batch in batches])
    assert positions.tolist() == list(range(images.num_images))
    assert torch.cat([batch.labels for batch in batches]).tolist() == images.labels.tolist()
    assert all(len(batch.labels) <= batch_images and (batch.weights_B == 1).all() for batch in batches)


def test_a_subset_keeps_its_own_order(photos, tmp_path):
    keep = np.array([5, 1, 3])
    images = EvalImages(photos, "train", 12, "squash", tmp_path, keep=keep)
    (batch,) = images.batches(10)
    assert batch.positions_B.tolist() == [5, 1, 3]
    assert batch.labels.tolist() == EvalImages.labels_of(photos, "train", tmp_path)[keep].tolist()


@pytest.mark.parametrize("resize", ["squash", "resize_crop", "resmall_crop"])
def test_protocols_give_the_asked_size_and_differ(photos, tmp_path, resize):
    (batch,) = EvalImages(photos, "test", 12, resize, tmp_path).batches(100)
    (squashed,) = EvalImages(photos, "test", 12, "squash", tmp_path).batches(100)
    assert batch.images_BCHW.shape[1:] == (3, 12, 12)
    assert torch.equal(batch.images_BCHW, squashed.images_BCHW) == (resize == "squash")
