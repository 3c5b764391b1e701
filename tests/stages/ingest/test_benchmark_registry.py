"""The registry: every entry says what a user needs, its digests are what others publish, and it is light to load."""

import re
from pathlib import Path

import pytest
import torchvision.datasets as theirs

from vitpipe.stages.ingest.benchmarks.registry import REGISTRY, Benchmark
from vitpipe.stages.ingest.sources.benchmark_files import READERS

LENGTHS = {"md5": 32, "sha256": 64, "content-sha256": 64}
VTAB = {name for name, benchmark in REGISTRY.items() if benchmark.group == "vtab"}
PUBLISHED = re.compile(r"\b[0-9a-f]{32}\b")


@pytest.mark.parametrize("benchmark", REGISTRY.values(), ids=lambda benchmark: benchmark.name)
def test_every_entry_says_what_a_user_needs(benchmark: Benchmark):
    assert "test" in benchmark.splits and benchmark.title and benchmark.metric in ("top1", "real")
    assert benchmark.obtain and benchmark.licence and benchmark.home and benchmark.image_bytes > 0
    assert benchmark.reader in READERS and benchmark.group in ("paper", "vtab", "fewshot", "small")
    assert benchmark.classes == () or len(benchmark.classes) == benchmark.num_classes
    assert len({file.path for file in benchmark.files}) == len(benchmark.files)
    for file in (*benchmark.files, *benchmark.archives):
        for digest in file.digests:
            kind, _, value = digest.partition(":")
            assert len(value) == LENGTHS[kind] and set(value) <= set("0123456789abcdef"), file
        assert benchmark.source or not file.digests, "a digest has a source"
    if not all(file.digests for file in benchmark.files) or not benchmark.files:
        assert benchmark.unverified, "what nobody vouches for is said"
    for pieces in benchmark.parts.values():
        for piece in pieces:
            assert 0 <= piece.start < (piece.stop or benchmark.images[piece.split]) <= benchmark.images[piece.split]


def test_vtab_has_its_nineteen_tasks_of_a_thousand_images():
    assert len(VTAB) == 19
    assert all(REGISTRY[name].splits["train"] == 1000 for name in VTAB)
    wanted = {  # as VTAB's paper and code have them
        "caltech101": (6084, 102), "cifar100": (10_000, 100), "dtd": (1880, 47), "flowers102": (6149, 102),
        "pets": (3669, 37), "sun397": (21_750, 397), "svhn": (26_032, 10), "patch-camelyon": (32_768, 2),
        "eurosat": (5400, 10), "resisc45": (6300, 45), "diabetic-retinopathy": (42_670, 5),
        "clevr-count": (15_000, 8), "clevr-distance": (15_000, 6), "dmlab": (22_735, 6), "kitti-distance": (711, 4),
        "dsprites-location": (73_728, 16), "dsprites-orientation": (73_728, 16), "smallnorb-azimuth": (12_150, 18),
        "smallnorb-elevation": (12_150, 9),
    }  # fmt: skip
    assert {name[5:]: (REGISTRY[name].splits["test"], REGISTRY[name].num_classes) for name in VTAB} == wanted


def test_no_two_splits_of_a_benchmark_share_an_example():
    for benchmark in REGISTRY.values():
        seen: set[tuple[str, int]] = set()
        for pieces in benchmark.parts.values():
            for piece in pieces:
                stop = piece.stop or benchmark.images[piece.split]
                rows = {(piece.split, number) for number in range(piece.start, stop)}
                assert not rows & seen, benchmark.name
                seen |= rows


def test_md5s_are_those_that_torchvision_publishes():
    folder = Path(theirs.__file__).parent
    published = {digest for path in folder.glob("*.py") for digest in PUBLISHED.findall(path.read_text())}
    ours = {
        (benchmark.name, digest.removeprefix("md5:"))
        for benchmark in REGISTRY.values()
        for file in (*benchmark.files, *benchmark.archives)
        for digest in file.digests
        if digest.startswith("md5:")
    }
    assert len(ours) > 40 and {digest for _, digest in ours} <= published
