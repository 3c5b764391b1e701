"""Labels by rules on scenes, and ImageNet with its reassessed labels: against VTAB and torchvision."""

import json
import tarfile

import numpy as np
import pytest
from official_files import found_in, official, read_named, write_clevr, write_images, write_kitti, write_tar, write_text
from scipy.io import savemat
from torchvision.datasets import CLEVRClassification

from vitpipe.infra.errors import IntegrityError, UsageError
from vitpipe.stages.images.wordnet import imagenet_ids
from vitpipe.stages.ingest.benchmarks.scenes import CLEVR_DISTANCES, KITTI_DISTANCES, kitti_splits, over, scenes

EVERY = {"parts": {}}


@pytest.mark.parametrize("task", ["count", "distance"])
def test_clevr(tmp_path, monkeypatch, task):
    root = tmp_path / "clevr" / "CLEVR_v1.0"
    write_clevr(root, 9, 8)
    source = official(monkeypatch, f"vtab-clevr-{task}", root, {"train": 9, "validation": 8}, **EVERY)
    found = found_in(source)
    edges = [*CLEVR_DISTANCES, 100.0]
    for split, word, count in (("train", "train", 9), ("validation", "val", 8)):
        for n in range(count):
            closest = 7.75 + n / 2
            label = n % 8 if task == "count" else next(k for k, edge in enumerate(edges) if closest <= edge)
            assert found[f"images/{word}/CLEVR_{word}_{n:06d}.png"] == (split, (label,))
    if task == "count":
        theirs = CLEVRClassification(tmp_path, "train")
        ours = [found[f"images/train/CLEVR_train_{n:06d}.png"][1][0] + 3 for n in range(9)]
        assert ours == [theirs._labels[n] for n in range(9)]


def test_scenes_are_read_one_by_one_and_damage_is_told(tmp_path):
    path = tmp_path / "scenes.json"
    listed = [{"a": n, "b": ["]", {"scenes": "["}]} for n in range(5)]
    for indent in (None, 2):
        path.write_text(json.dumps({"info": [], "scenes": listed}, indent=indent))
        assert list(scenes(path)) == listed
    for broken in ('{"scenes": [{"a": 1}, {"a"', '{"scenes": [{"a": 1}', '{"info": []}'):
        path.write_text(broken)
        with pytest.raises(IntegrityError):
            list(scenes(path))


def vtab_label(thresholds: list[float], distance: float) -> int:
    """As VTAB writes it: tf.reduce_max(tf.where((thrs - dist) < 0))."""
    return int(np.max(np.where((np.array(thresholds) - distance) < 0)))


def test_labels_of_distances_are_vtabs_own_rule():
    rng = np.random.default_rng(0)
    for distance in [*rng.uniform(0.1, 14, 300), 8.0, 8.5, 10.0]:
        assert over(distance, CLEVR_DISTANCES) == vtab_label([0.0, 8.0, 8.5, 9.0, 9.5, 10.0, 100.0], distance)
    for distance in [*rng.uniform(-5, 120, 300), 8.0, 20.0, 1000.0]:
        assert over(distance, KITTI_DISTANCES) == vtab_label([-100.0, 8.0, 20.0, 999.0], distance)


def test_kitti(tmp_path, monkeypatch):
    objects = [
        [("Car", 30.0), ("Van", 7.5), ("Pedestrian", 2.0)], [("Truck", 8.01)], [("DontCare", -1000.0)], [("Car", 20.5)],
    ] * 5  # fmt: skip
    videos = [f"video_{n // 2:02d}" for n in range(20)]
    write_kitti(tmp_path, objects, videos)
    split_of = kitti_splits(tmp_path / "mapping/train_rand.txt", tmp_path / "mapping/train_mapping.txt")
    images = {split: split_of.count(split) for split in ("train", "validation", "test")}
    assert images == {"train": 16, "validation": 2, "test": 2}, "a tenth of ten videos each, two images a video"
    for n in range(0, 20, 2):
        assert split_of[n] == split_of[n + 1], "a video does not straddle"
    source = official(monkeypatch, "vtab-kitti-distance", tmp_path, images, **EVERY)
    found = found_in(source)
    for n in range(20):
        assert found[f"training/image_2/{n:06d}.png"] == (split_of[n], ((0, 1, 3, 2)[n % 4],))
    write_text(tmp_path, training__label_2__000003="Car 1 2")
    with pytest.raises(IntegrityError, match="a line says 'Car 1 2'"):
        source.listing()


WNIDS = list(imagenet_ids()[:3])


def write_devkit(root, truth):
    """The kit's own numbers go another way than the sorted ids, and a parent has no images."""
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("num_children", "O")]
    rows = [(1, WNIDS[2], 0), (2, WNIDS[0], 0), (3, WNIDS[1], 0), (4, "n99999999", 3)]
    data = root / "ILSVRC2012_devkit_t12" / "data"
    data.mkdir(parents=True, exist_ok=True)
    savemat(data / "meta.mat", {"synsets": np.array([rows], dtype=kind).T})
    (data / "ILSVRC2012_validation_ground_truth.txt").write_text("".join(f"{n}\n" for n in truth))


@pytest.mark.parametrize("packed", [False, True])
def test_imagenet_as_folders_or_tars_with_the_kits_ground_truth(tmp_path, monkeypatch, packed):
    names = {wnid: [f"{wnid}_{n}.JPEG" for n in range(2)] for wnid in WNIDS}
    for wnid, files in names.items():
        if packed:
            write_tar(tmp_path / "train" / f"{wnid}.tar", files)
        else:
            write_images(tmp_path, *(f"train/{wnid}/{file}" for file in files), kind="JPEG")
    write_images(tmp_path, *(f"val/ILSVRC2012_val_{n:08d}.JPEG" for n in range(1, 5)), kind="JPEG")
    write_devkit(tmp_path, [1, 2, 3, 1])
    source = official(monkeypatch, "imagenet", tmp_path, {"train": 6, "test": 4}, num_classes=3)
    found = found_in(source)
    assert source.listing().classes == tuple(WNIDS)
    assert [found[f"val/ILSVRC2012_val_{n:08d}.JPEG"] for n in range(1, 5)] == [("test", (k,)) for k in (2, 0, 1, 2)]
    inside = f"train/{WNIDS[1]}{'.tar' if packed else ''}/{WNIDS[1]}_1.JPEG"
    assert found[inside] == ("train", (1,)) and read_named(source, inside)[:2] == b"\xff\xd8"
    write_devkit(tmp_path, [1, 2, 4, 1])
    with pytest.raises(IntegrityError, match="line 3 says '4', which is no class"):
        source.listing()
    for n, wnid in enumerate((WNIDS[2], WNIDS[0], WNIDS[1], WNIDS[2]), 1):
        (tmp_path / "val" / wnid).mkdir(exist_ok=True)
        file = f"ILSVRC2012_val_{n:08d}.JPEG"
        (tmp_path / "val" / file).rename(tmp_path / "val" / wnid / file)
    assert found_in(source)[f"val/{WNIDS[0]}/ILSVRC2012_val_00000002.JPEG"] == ("test", (0,)), "sorted into folders"


def test_imagenet_as_it_is_downloaded(tmp_path, monkeypatch):
    files = {wnid: [f"{wnid}_{n}.JPEG" for n in range(2)] for wnid in WNIDS}
    for wnid, names in files.items():
        write_tar(tmp_path / "apart/train" / f"{wnid}.tar", names)
    vals = [f"ILSVRC2012_val_{n:08d}.JPEG" for n in range(1, 5)]
    write_tar(tmp_path / "val.tar", vals)
    with tarfile.open(tmp_path / "val.tar") as packed:
        packed.extractall(tmp_path / "apart/val", filter="data")
    root = tmp_path / "whole"
    root.mkdir()
    (tmp_path / "val.tar").rename(root / "ILSVRC2012_img_val.tar")
    with tarfile.open(root / "ILSVRC2012_img_train.tar", "w") as outer:
        for wnid in WNIDS:
            outer.add(tmp_path / "apart/train" / f"{wnid}.tar", f"{wnid}.tar")
    listings = []
    for one in (tmp_path / "apart", root):
        write_devkit(one, [1, 2, 3, 1])
        source = official(monkeypatch, "imagenet", one, {"train": 6, "test": 4}, num_classes=3)
        listing = source.listing()
        listings.append([(item.name, item.labels, item.split, source.read(item)) for item in listing.items])
        names = [name for name, _, _ in source.inventory(listing)]
        assert ("ILSVRC2012_img_train.tar" in names and len(names) == 2) == (one == root)
    assert listings[0] == listings[1] and len(listings[0]) == 10
    data = (root / "ILSVRC2012_img_train.tar").read_bytes()
    (root / "ILSVRC2012_img_train.tar").write_bytes(data[: len(data) // 2])
    with pytest.raises(IntegrityError, match=r"ILSVRC2012_img_train\.tar"):
        source.listing()


def test_imagenet_without_a_ground_truth(tmp_path, monkeypatch):
    write_images(tmp_path, f"train/{WNIDS[0]}/a.JPEG", f"train/{WNIDS[1]}/b.JPEG", "val/c.JPEG", kind="JPEG")
    with pytest.raises(UsageError, match=r"val has no class folders, and .*ground_truth\.txt.*meta\.mat is missing"):
        official(monkeypatch, "imagenet", tmp_path, {"train": 2, "test": 1}).listing()


def test_real_leaves_out_images_without_a_right_label(tmp_path, monkeypatch):
    rights = [[5], [], [7, 3], [999], []]
    (tmp_path / "real.json").write_text(json.dumps(rights))
    write_images(tmp_path, *(f"val/ILSVRC2012_val_{n:08d}.JPEG" for n in range(1, 6)), kind="JPEG")
    source = official(monkeypatch, "imagenet-real", tmp_path, {"test": 5})
    listing = source.listing()
    assert listing.multi_label and [item.labels for item in listing.items] == [(5,), (3, 7), (999,)]
    assert "2 images without a right label are left out" in listing.notes[-1]
    (tmp_path / "real.json").write_text(json.dumps([*rights, [1000]]))
    with pytest.raises(IntegrityError, match="6 lists of classes, officially 5"):
        official(monkeypatch, "imagenet-real", tmp_path, {"test": 5}).listing()


def test_imagenet_v2_counts_its_folders(tmp_path, monkeypatch):
    folder = "imagenetv2-matched-frequency-format-val"
    monkeypatch.setattr("official_files.RNG", np.random.default_rng(1))
    write_images(tmp_path, *(f"{folder}/{n}/a.jpeg" for n in range(12)), kind="JPEG")
    classes = imagenet_ids()[:12]
    source = official(monkeypatch, "imagenet-v2", tmp_path, {"test": 12}, classes=classes, num_classes=12)
    assert source.listing().classes == classes, "folders are numbers of the classes that ImageNet names"
    assert found_in(source)[f"{folder}/10/a.jpeg"] == ("test", (10,)), "by number, not by name"
