"""The downstream data sets that can be ingested by name, as data: official files, splits, sizes, where to get them.

Digests are those that torchvision's `datasets` publish, or were taken from the named package. No torch, no reading.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class OfficialFile:
    """One file as its authors publish it, by its place below the root."""

    path: str
    digests: tuple[str, ...] = ()
    """Any of them: `md5:...` of the file, or `content-sha256:...` of what a .gz holds. None is published for lists
    that come inside archives: there the counts decide."""


@dataclass(frozen=True)
class Benchmark:
    """One data set."""

    name: str
    title: str
    """As in the paper's tables."""
    reader: Literal["idx", "cifar", "svhn", "pets", "flowers", "dtd"]
    files: tuple[OfficialFile, ...]
    images: dict[str, int]
    """Images of each official split."""
    num_classes: int
    image_bytes: int
    """Of one image, about: what a plan reckons with."""
    licence: str
    obtain: str
    """What to do to have the files below the root."""


_IDX = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")


def _idx(*md5: str, contents: tuple[str, ...] = ()) -> tuple[OfficialFile, ...]:
    """The four files of the MNIST family, in the order of their names above."""
    digests = [[f"md5:{digest}"] for digest in md5]
    for found, sha256 in zip(digests, contents, strict=False):
        found.append(f"content-sha256:{sha256}")
    return tuple(OfficialFile(f"{name}-ubyte.gz", tuple(each)) for name, each in zip(_IDX, digests, strict=True))


def _md5(folder: str, files: dict[str, str]) -> tuple[OfficialFile, ...]:
    return tuple(OfficialFile(f"{folder}{name}", (f"md5:{digest}",)) for name, digest in files.items())


_ALL = (
    Benchmark(
        "cifar10", "CIFAR-10", "cifar",
        _md5("cifar-10-batches-py/", {
            "data_batch_1": "c99cafc152244af753f735de768cd75f", "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751", "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb", "test_batch": "40351d587109b95175f43aff81a1287e",
            "batches.meta": "5ff9c542aee3614f3951f8cda6e48888"}),
        {"train": 50_000, "test": 10_000}, 10, 2_300, "none stated; cite Krizhevsky 2009",
        "download cifar-10-python.tar.gz (md5 c58f30108f718f92721af3b95e74349a) and unpack it below the root",
    ),
    Benchmark(
        "cifar100", "CIFAR-100", "cifar",
        _md5("cifar-100-python/", {
            "train": "16019d7e3df5f24257cddd939b257f8d", "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
            "meta": "7973b15100ade9c7d40fb424638fde48"}),
        {"train": 50_000, "test": 10_000}, 100, 2_300, "none stated; cite Krizhevsky 2009",
        "download cifar-100-python.tar.gz (md5 eb9058c3a382ffc7106e4002c42a8d85) and unpack it below the root",
    ),
    Benchmark(
        "mnist", "MNIST", "idx",
        _idx("f68b3c2dcbeaaa9fbdd348bbdeb94873", "d53e105ee54ea40749a09fcbcd1e9432",
             "9fb629c4189551a2d022fa330f9573f3", "ec29112dd5afa0611ce80d1b7f02629c"),
        {"train": 60_000, "test": 10_000}, 10, 300, "CC BY-SA 3.0", "download the four idx .gz files into the root",
    ),
    Benchmark(
        "fashion-mnist", "Fashion-MNIST", "idx",
        _idx("8d4fb7e6c68d591d4c3dfef9ec88bf0d", "25c81989df183df01b3e8a0aad5dffbe",
             "bef4ecab320f06d8554ea6380940ec79", "bb300cfdad3c16e7a12a480ee83cd310",
             contents=(  # Debian packs the same bytes anew
                 "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                 "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                 "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                 "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34")),
        {"train": 60_000, "test": 10_000}, 10, 550, "MIT",
        "on Debian: apt-get install dataset-fashion-mnist, the root is /usr/share/datasets/fashion-mnist; or download "
        "the four idx .gz files into the root",
    ),
    Benchmark(
        "kmnist", "Kuzushiji-MNIST", "idx",
        _idx("bdb82020997e1d708af4cf47b453dcf7", "e144d726b3acfaa3e44228e80efcd344",
             "5c965bf0a639b31b8f53240b1b52f4d7", "7320c461ea6c1c855c0b718fb2a4b134"),
        {"train": 60_000, "test": 10_000}, 10, 450, "CC BY-SA 4.0", "download the four idx .gz files into the root",
    ),
    Benchmark(
        "svhn", "SVHN", "svhn",
        (OfficialFile("train_32x32.mat", ("md5:e26dedcc434d2e4c54c9b2d4a06d8373",)),
         OfficialFile("test_32x32.mat", ("md5:eb5a983be6a315427106f1b164d9cef3",))),
        {"train": 73_257, "test": 26_032}, 10, 2_300, "non-commercial use",
        "download train_32x32.mat and test_32x32.mat into the root",
    ),
    Benchmark(
        "oxford_iiit_pet", "Oxford-IIIT Pets", "pets",
        (OfficialFile("annotations/trainval.txt"), OfficialFile("annotations/test.txt")),
        {"train": 3_680, "test": 3_669}, 37, 110_000, "CC BY-SA 4.0",
        "download images.tar.gz (md5 5c4f3ee8e5d25df40f4fd59a7f44e54c) and annotations.tar.gz "
        "(md5 95a8c909bbe2e81eed6a22bccdf3f68f) and unpack both below the root",
    ),
    Benchmark(
        "oxford_flowers102", "Oxford Flowers-102", "flowers",
        (OfficialFile("imagelabels.mat", ("md5:e0620be6f572b9609742df49c70aed4d",)),
         OfficialFile("setid.mat", ("md5:a5357ecc9cb78c4bef273ce3793fc85c",))),
        {"train": 1_020, "validation": 1_020, "test": 6_149}, 102, 42_000, "none stated; cite Nilsback, Zisserman 2008",
        "download imagelabels.mat and setid.mat into the root, 102flowers.tgz (md5 52808999861908f626f3c1f4e79d11fa) "
        "and unpack it there (it makes the folder jpg)",
    ),
    Benchmark(
        "dtd", "DTD", "dtd",
        (OfficialFile("labels/train1.txt"), OfficialFile("labels/val1.txt"), OfficialFile("labels/test1.txt")),
        {"train": 1_880, "validation": 1_880, "test": 1_880}, 47, 105_000, "research use",
        "download dtd-r1.0.1.tar.gz (md5 fff73e5086ae6bdbea199a49dfb8a4c1), unpack it and give its folder dtd as root",
    ),
)  # fmt: skip
REGISTRY: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in _ALL}
