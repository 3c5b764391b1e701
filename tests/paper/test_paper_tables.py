"""The paper's tables as data."""

import pytest

from stages.paper.tables import benchmark_id, published, tables, title


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
