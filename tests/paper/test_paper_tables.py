"""The paper's tables as data."""

import pytest

from vitpipe.stages.ingest.benchmarks.registry import REGISTRY
from vitpipe.stages.paper.tables import benchmark_id, published, tables, title, vtab_means, vtab_task


def test_headline_numbers():
    found = {(one.table, one.model, one.pretrained_on): (one.value, one.spread) for one in published("CIFAR-10")}
    assert found["Table 2", "ViT-H/14", "JFT-300M"] == (99.50, 0.06)
    assert found["Table 5", "ViT-L/16", "ImageNet-21k"] == (99.16, None)
    assert found["Table 2", "BiT-L R152x4", "JFT-300M"] == (99.37, 0.06)
    assert len(found) == 4 + 14


def test_the_columns_of_the_two_tables_agree():
    """Table 5 gives Table 2's models at 384 px without averaging: within half a point, except on ImageNet."""
    for benchmark, row in tables()["table2"]["rows"].items():
        fifth = tables()["table5"]["rows"]["ImageNet-21k"].get(benchmark)
        if fifth and not benchmark.startswith("imagenet"):
            assert fifth[2] == pytest.approx(row[2][0], abs=0.5)


@pytest.mark.parametrize("name", ["imagenet", "ImageNet-1k", "cifar_10", "pets", "flowers102", "vtab"])
def test_benchmarks_are_known_by_their_usual_names(name):
    assert benchmark_id(name) and title(name) != name


def test_other_names_are_left_as_they_are():
    assert benchmark_id("digits") is None and title("digits") == "digits" and published("digits") == []


def test_every_fine_tuning_recipe_names_a_known_benchmark():
    assert set(tables()["table4"]["rows"]) == set(tables()["benchmarks"]) - {"imagenet-real"}


def test_means_of_table_9_are_those_of_table_2():
    means = {key: {group: round(mean, 2) for group, mean in groups.items()} for key, groups in vtab_means().items()}
    assert {key: groups["all"] for key, groups in means.items()} == {
        ("ViT-H/14", "JFT-300M"): 77.63, ("ViT-L/16", "JFT-300M"): 76.29, ("ViT-L/16", "ImageNet-21k"): 72.71
    }  # fmt: skip
    for key, (value, _) in zip(means, tables()["table2"]["rows"]["vtab"], strict=False):
        assert means[key]["all"] == pytest.approx(value, abs=0.011), "Table 2 rounds the means of its three runs"
    groups_of = means["ViT-H/14", "JFT-300M"]
    by_group = {group: [round(groups[group], 1) for groups in vtab_means().values()] for group in groups_of}
    assert by_group == {
        "all": [77.6, 76.3, 72.7], "natural": [86.7, 85.6, 83.3], "specialized": [87.0, 86.7, 84.7],
        "structured": [65.0, 63.0, 57.5],
    }  # fmt: skip


def test_tasks_of_vtab_are_those_that_can_be_ingested():
    assert set(tables()["table9"]["tasks"]) == {name for name in REGISTRY if name.startswith("vtab-")}
    assert vtab_task("vtab_patch_camelyon") == "vtab-patch-camelyon" and vtab_task("vtab-mnist") is None
    assert title("vtab-dmlab") == "DMLab (VTAB-1k)"
    assert [(one.table, one.model, one.value) for one in published("vtab-svhn")] == [
        ("Table 9", "ViT-H/14", 88.9), ("Table 9", "ViT-L/16", 87.4), ("Table 9", "ViT-L/16", 80.9)
    ]  # fmt: skip
