"""What decides a result and what does not, and how two recipes are told apart."""

from typing import Literal

import pytest
from pydantic import Field
from small_spec import GOOD

from vitpipe.pipeline.plan import fingerprint
from vitpipe.pipeline.plan.fingerprint import Fingerprint, canonical, differences, fingerprints
from vitpipe.pipeline.spec.catalog import CATALOG, Stage
from vitpipe.pipeline.spec.load import load
from vitpipe.stages.settings import Settings

SPEC = GOOD.replace("batch_images: 30", "batch_images: 32").replace(
    "total: 3 epochs}",
    "total: 3 epochs, optimizer: {peak_lr: 1e-3}}\n  files: {stage: convert, needs: {checkpoint: net}}",
)


def of(*overrides: str, spec: str = SPEC) -> dict[str, Fingerprint]:
    return fingerprints(load(spec, overrides).graph, {})


SAME = {
    "resources": ("nodes.net.resources={workers: 4, zero: 3, micro_batch: 4}",),
    "a default, stated": ("nodes.net.config.precision=bf16", "nodes.net.config.seed=0"),
    "a default of a section": ("nodes.net.config.augment={flip: true}", "nodes.net.config.schedule={}"),
    "another name": ("name=other",),
    "another store": ("store=s3://bucket/x",),
    "a whole number as a float": ("nodes.net.config.optimizer.weight_decay=0.10", "nodes.net.config.augment.mixup=0"),
    "a duration in other words": ("nodes.net.config.total=3.0 epochs",),
}
DIFFERENT = {
    "seed": ("nodes.net.config.seed=1",),
    "precision": ("nodes.net.config.precision=fp32",),
    "length": ("nodes.net.config.total=4 epochs",),
    "a long length": ("nodes.net.config.total=1234567 steps",),
    "the data": ("nodes.data.config.source.limit=100",),
}


@pytest.mark.parametrize("overrides", SAME.values(), ids=SAME.keys())
def test_what_does_not_change_the_result_does_not_change_the_fingerprint(overrides: tuple[str, ...]) -> None:
    assert of(*overrides) == of()


@pytest.mark.parametrize("overrides", DIFFERENT.values(), ids=DIFFERENT.keys())
def test_what_changes_the_result_changes_it_and_all_that_follow(overrides: tuple[str, ...]) -> None:
    before, after = of(), of(*overrides)

    assert before["net"].sha256 != after["net"].sha256
    assert before["files"].sha256 != after["files"].sha256


def test_lengths_that_look_alike_when_rounded_differ() -> None:
    assert of("nodes.net.config.total=1234567 steps") != of("nodes.net.config.total=1234568 steps")


def test_a_local_root_may_move_and_an_address_may_not() -> None:
    def folder(root: str) -> str:
        return of(f"nodes.data.config.source={{kind: folder, root: '{root}'}}")["data"].sha256

    assert folder("./a") == folder("/b")
    assert folder("s3://bucket/a") != folder("s3://bucket/b")


def test_files_may_move_but_which_are_meant_is_the_recipe() -> None:
    def tars(*urls: str) -> str:
        return of(f"nodes.data.config.source={{kind: webdataset, urls: {list(urls)}}}")["data"].sha256

    assert tars("./in/{00..09}.tar") == tars("/moved/{00..09}.tar") != tars("/moved/{00..08}.tar")
    assert tars("./a.tar::b.tar") == tars("/moved/a.tar", "/b.tar") != tars("/moved/a.tar")
    assert tars("/a/in") == tars("/b")
    assert tars("s3://bucket/a/x.tar") != tars("s3://bucket/b/x.tar")


def test_the_version_of_the_result_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    before = of()
    raised = Stage(**{**vars(CATALOG["pretrain"]), "version": CATALOG["pretrain"].version + 1})
    monkeypatch.setitem(CATALOG, "pretrain", raised)

    after = of()

    assert before["data"] == after["data"] and before["net"].sha256 != after["net"].sha256
    assert differences(before["net"].recipe, after["net"].recipe) == [
        f"version {raised.version - 1} -> {raised.version}"
    ]


def test_artifacts_of_other_runs_count_by_their_fingerprint() -> None:
    spec = load(SPEC, ["nodes.net.needs.shards=s3://bucket/run/data"])

    one, two = (fingerprints(spec.graph, {"s3://bucket/run/data": name})["net"].sha256 for name in ("a", "b"))

    assert one != two
    with pytest.raises(KeyError):
        fingerprints(spec.graph, {})


def test_fingerprints_do_not_change_between_releases() -> None:
    """A change here makes every committed result drift: raise a result version instead, or mean it."""
    assert {name: found.sha256[:12] for name, found in of().items()} == PINNED


PINNED = {"data": "6696fd70afbe", "net": "77e6496dbdca", "files": "ba8f38951573"}


class Old(Settings):
    kind: Literal["old"] = "old"
    rate: float = 1


class New(Settings):
    kind: Literal["new"] = "new"
    rate: float = 1


class Outer(Settings):
    inner: Old | New = Field(default=Old(), discriminator="kind")
    words: dict[str, float] = Field(default={"a": 1.0})
    maybe: Old | None = None


class OuterLater(Outer):
    added: int = 5


def test_alternatives_with_equal_fields_differ() -> None:
    assert canonical(Outer(inner=New())) == {"inner": {"kind": "new"}}
    assert canonical(Outer(inner=Old())) == {}
    assert canonical(Outer(maybe=Old())) == {"maybe": {"kind": "old"}}


def test_a_field_added_later_drifts_nothing() -> None:
    assert canonical(OuterLater(words={"b": 2})) == canonical(Outer(words={"b": 2})) == {"words": {"b": 2}}


def test_one_and_true_are_two_things() -> None:
    class Flag(Settings):
        on: bool | int = 0

    assert canonical(Flag(on=False)) == {"on": False} and canonical(Flag(on=0)) == {}


DRIFTS = {
    "a number": (("nodes.net.config.optimizer.peak_lr=3e-3",), ["config.optimizer.peak_lr 0.001 -> 0.003"]),
    "from a default": (("nodes.net.config.seed=3",), ["config.seed 0 -> 3"]),
    "a word": (("nodes.net.config.precision=fp32",), ["config.precision bf16 -> fp32"]),
    "a length": (("nodes.net.config.total=4 epochs",), ["config.total 3 epochs -> 4 epochs"]),
    "a list": (
        ("nodes.net.config.optimizer.betas=[0.9, 0.99]",),
        ["config.optimizer.betas [0.9, 0.999] -> [0.9, 0.99]"],
    ),
    "another form": (
        ("nodes.net.config.model.variant={layers: 1, width: 4, mlp: 4, heads: 1, patch_px: 4}",),
        ['config.model.variant S/16 -> {"heads": 1, "layers": 1, "mlp": 4, "patch_px": 4, "width": 4}'],
    ),
    "an option": (
        ("nodes.net.config.augment.randaugment={}",),
        ["config.augment.randaugment null -> {}"],
    ),
    "two fields": (
        ("nodes.net.config.seed=3", "nodes.net.config.batch_images=16"),
        ["config.batch_images 32 -> 16", "config.seed 0 -> 3"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("overrides", "lines"), DRIFTS.values(), ids=DRIFTS.keys())
def test_a_drift_names_the_field_and_both_values(overrides: tuple[str, ...], lines: list[str]) -> None:
    before, after = of()["net"].recipe, of(*overrides)["net"].recipe

    assert differences(before, after) == lines
    assert differences(after, before) == [_turned(line) for line in lines]


def _turned(line: str) -> str:
    path, _, values = line.partition(" ")
    old, _, new = values.partition(" -> ")
    return f"{path} {new} -> {old}"


def test_a_drift_of_an_input_names_the_input() -> None:
    (line,) = differences(of()["net"].recipe, of("nodes.data.config.source.limit=9")["net"].recipe)

    assert line.startswith("inputs.shards ") and " -> " in line


def test_splits_are_told_apart_one_by_one() -> None:
    folder = "nodes.data.config={source: {kind: glyphs, classes: 2, images_per_class: 4, image_px: 8}, splits: %s}"
    before, after = (of(folder % splits)["data"].recipe for splits in ("{train: 1}", "{train: 0.5, test: 0.5}"))

    assert differences(before, after) == ["config.splits.test (not given) -> 0.5", "config.splits.train 1 -> 0.5"]


def test_equal_recipes_do_not_differ() -> None:
    recipe = of()["net"].recipe

    assert differences(recipe, recipe) == []
    assert fingerprint.encode(recipe) == fingerprint.encode(dict(reversed(list(recipe.items()))))
