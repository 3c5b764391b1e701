"""One node becomes siblings: their ids, what fills them, and whose siblings a need means."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitpipe.pipeline.spec.graph import Graph
from vitpipe.pipeline.spec.load import SpecError, load
from vitpipe.pipeline.spec.top_level import NAME

TOP = "version: 1\nname: run\nstore: file://./runs\nnodes:\n"
DATA = "  data: {stage: ingest, config: {source: {kind: digits}}}\n"


def graph(*nodes: str) -> Graph:
    return load(TOP + DATA + "".join(f"  {node}\n" for node in nodes)).graph


def refusal(*nodes: str) -> str:
    with pytest.raises(SpecError) as caught:
        graph(*nodes)
    return str(caught.value)


def net(foreach: str, config: str = "", needs: str = "data", name: str = "net") -> str:
    fields = "model: {variant: S/16, image_px: 32}, batch_images: 32, total: 3 epochs"
    return f"{name}: {{stage: pretrain, foreach: {foreach}, needs: {{shards: {needs}}}, config: {{{fields}{config}}}}}"


def weights(foreach: str | None, needs: str = "net", name: str = "weights") -> str:
    each = f"foreach: {foreach}, " if foreach else ""
    return f"{name}: {{stage: convert, {each}needs: {{checkpoint: {needs}}}}}"


def table(needs: str) -> str:
    return f"table: {{stage: report, needs: {{scores: {needs}}}}}"


def score(foreach: str, needs: str = "weights", name: str = "score") -> str:
    return f"{name}: {{stage: evaluate, foreach: {foreach}, needs: {{data: data, weights: {needs}}}, config: {{method: classify}}}}"  # noqa: E501


def ids(found: Graph, name: str) -> list[str]:
    return list(found.named(name))


IDS = {
    "numbers": ("{seed: [0, 1]}", ["net/0", "net/1"]),
    "a name with other characters": ("{model: [L/16, 'ViT B']}", ["net/l-16", "net/vit-b"]),
    "trimmed": ("{model: ['(big)']}", ["net/big"]),
    "numbers with a point": ("{lr: [1e-3, 0.5]}", ["net/0-001", "net/0-5"]),
    "true": ("{flip: [true, false]}", ["net/true", "net/false"]),
    "mapping with an id": ("{m: [{id: Big, x: 1}]}", ["net/big"]),
    "cross product": ("{m: [a, b], seed: [0, 1]}", ["net/a--0", "net/a--1", "net/b--0", "net/b--1"]),
    "one value": ("{m: [x]}", ["net/x"]),
}


@pytest.mark.parametrize(("foreach", "expected"), IDS.values(), ids=IDS.keys())
def test_ids_are_slugged_values_in_the_order_written(foreach: str, expected: list[str]) -> None:
    assert ids(graph(net(foreach)), "net") == expected


def test_each_fills_config_resources_and_needs() -> None:
    found = graph(
        "b: {stage: ingest, config: {source: {kind: digits, limit: 9}}}",
        "net: {stage: pretrain, foreach: {m: [{id: x, from: data, model: {variant: S/16, image_px: 32}, zero: 2}], "
        "seed: [3]}, needs: {shards: '${each.m.from}'}, config: {model: '${each.m.model}', batch_images: 32, "
        "total: '${each.seed} epochs', seed: '${each.seed}'}, resources: {zero: '${each.m.zero}'}}",
    )

    node = found.nodes["net/x--3"]
    config: Any = node.config
    resources: Any = node.resources
    assert (config.seed, str(config.total), config.model.image_px, resources.zero) == (3, "3 epochs", 32, 2)
    assert node.needs["shards"] == ("data",)


def test_a_mapping_stands_for_itself_without_its_id() -> None:
    found = graph(
        "more: {stage: ingest, foreach: {s: [{id: few, kind: digits, limit: 9}]}, config: {source: '${each.s}'}}"
    )

    config: Any = found.nodes["more/few"].config
    assert config.source.limit == 9


def test_shared_keys_agree_one_to_one() -> None:
    found = graph(net("{m: [a, b]}"), weights("{m: [b, a]}"))

    assert found.nodes["weights/a"].needs["checkpoint"] == ("net/a",)
    assert found.nodes["weights/b"].needs["checkpoint"] == ("net/b",)


def test_a_key_only_the_needing_node_has_repeats_the_input() -> None:
    found = graph(net("{m: [a, b]}"), weights("{m: [a], dtype: [x, y]}"))

    assert [found.nodes[id].needs["checkpoint"] for id in ids(found, "weights")] == [("net/a",), ("net/a",)]


def test_a_key_only_the_needed_node_has_makes_a_list_in_the_order_written() -> None:
    found = graph(
        net("{m: [b, a]}"), weights("{m: [a, b]}"), score("{m: [a, b], t: [2, 1]}"),
        "tables: {stage: report, foreach: {m: [a]}, needs: {scores: score}}",
    )  # fmt: skip

    assert found.nodes["tables/a"].needs["scores"] == ("score/a--2", "score/a--1")


def test_lists_flatten_and_one_sibling_can_be_named() -> None:
    found = graph(
        net("{m: [a, b]}"), weights("{m: [a, b]}"), score("{m: [a, b]}"), score("{m: [a]}", name="other"),
        table("[other, [score/b, score/a]]"),
    )  # fmt: skip

    assert found.nodes["table"].needs["scores"] == ("other/a", "score/b", "score/a")


def test_a_list_can_come_from_each() -> None:
    found = graph(
        net("{m: [a, b]}"), weights("{m: [a, b]}"), score("{m: [a, b]}"),
        "tables: {stage: report, foreach: {g: [{id: x, of: [score/a, score/b]}]}, needs: {scores: '${each.g.of}'}}",
    )  # fmt: skip

    assert found.nodes["tables/x"].needs["scores"] == ("score/a", "score/b")


def test_without_foreach_all_siblings_are_a_list() -> None:
    found = graph(net("{m: [a, b]}"), weights("{m: [a, b]}"), score("{m: [a, b]}"), table("score"))

    assert found.nodes["table"].needs["scores"] == ("score/a", "score/b")


REFUSED = {
    "two with one id": ((net("{m: [a-b, a_b]}"),), "two siblings have the id 'a-b'"),
    "id too long": ((net(f"{{m: [{'x' * 64}]}}"),), "has 64 characters, 63 at most"),
    "joined id too long": ((net(f"{{m: [{'x' * 40}], n: [{'y' * 40}]}}"),), "give the values explicit `id`s"),
    "id like an attempt": ((net("{m: [a1]}"),), "'a1' is reserved"),
    "mapping without an id": ((net("{m: [{x: 1}]}"),), "a mapping with an `id`"),
    "list as a value": ((net("{m: [[1]]}"),), "a mapping with an `id`"),
    "nothing left of it": ((net("{m: ['--']}"),), "leaves nothing for an id"),
    "no values": ((net("{m: []}"),), "a list of at least one value"),
    "no keys": ((net("{}"),), "at least one key"),
    "not a list": ((net("{m: a}"),), "a list of at least one value"),
    "unknown each": ((net("{m: [a]}", ", seed: '${each.n}'"),), "unknown foreach key 'n'"),
    "unknown field": ((net("{m: [{id: a, x: 1}]}", ", seed: '${each.m.y}'"),), "unknown field of each.m 'y'"),
    "field of a word": ((net("{m: [a]}", ", seed: '${each.m.y}'"),), "each.m is a single value"),
    "none agrees": ((net("{m: [a]}"), weights("{m: [b]}")), "no sibling of net has m 'b', as weights/b does"),
    "many for a single": ((net("{m: [a, b]}"), weights(None)), "takes a single Checkpoint, and this is a list"),
    "one of many for a single": ((net("{m: [a]}"), weights(None)), "takes a single Checkpoint, and this is a list"),
    "a list of one": ((net("{m: [a]}"), weights(None, "[net/a]")), "takes a single Checkpoint, and this is a list"),
    "unknown sibling": ((net("{m: [ab]}"), weights(None, "net/ac")), "unknown sibling 'net/ac'; did you mean 'net/ab'"),
    "sibling of a single": ((weights(None, "data/a"),), "unknown sibling 'data/a'"),
    "named twice": (
        (net("{m: [a]}"), weights("{m: [a]}"), score("{m: [a]}"), table("[score, score/a]")),
        "names score/a more than once",
    ),
    "itself": ((net("{m: [a]}", needs="[data]"), weights("{m: [a]}", "weights")), "takes a Checkpoint, and weights/a"),
    "place that begins with each": (
        ("more: {stage: ingest, foreach: {r: [x]}, config: {source: {kind: folder, root: '${each.r}'}}}",),
        "write ./${each...}",
    ),
}


@pytest.mark.parametrize(("nodes", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_meant_is_refused(nodes: tuple[str, ...], words: str) -> None:
    assert words in refusal(*nodes)


def test_a_mistake_in_the_config_is_told_once_for_all_siblings() -> None:
    assert refusal(net("{m: [a, b, c]}", ", sead: 1")).count("unknown key 'sead'") == 1


VALUES = st.lists(
    st.one_of(
        st.integers(), st.booleans(), st.floats(allow_nan=False, allow_infinity=False), st.text("aA1-_/. é", max_size=6)
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(["k", "l"]), VALUES, min_size=1))
def test_every_accepted_id_is_a_safe_name_and_stands_once(keys: dict[str, list[object]]) -> None:
    try:
        found = graph(net(json.dumps(keys)))
    except SpecError as error:
        assert "foreach" in str(error)
        return
    siblings = [id.partition("/")[2] for id in found.named("net")]
    assert all(NAME.fullmatch(id) for id in siblings)
    assert len(set(siblings)) == len(siblings)
