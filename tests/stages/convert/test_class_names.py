"""Names of a head's classes on their way through convert: by their numbers, whatever else a file may suggest."""

import json
from pathlib import Path
from typing import Any

import pytest
import transformers
from converting import convert, fetched, wanted
from foreign_files import huggingface_folder
from tiny_checkpoint import commit_checkpoint
from tiny_vit import tiny

from vitpipe.infra.errors import IntegrityError, UsageError
from vitpipe.stages.convert.config import ForeignSource
from vitpipe.stages.convert.foreign.weights import ForeignWeights, glance
from vitpipe.stages.convert.formats.common import json_bytes, text
from vitpipe.stages.images.classes import alike, difference, names_by_number, nearly, pairs_alike, same_to_the_eye
from vitpipe.stages.predict.opened_weights import open_weights

TWELVE = [f"class {number}" for number in range(12)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hf")
    huggingface_folder(path, classes=12)
    return path


def looked_at(folder: Path, **config: Any) -> ForeignWeights:
    path = folder / "config.json"
    before = path.read_bytes()
    try:
        path.write_text(json.dumps(json.loads(before) | config))
        return glance(ForeignSource(path=str(folder)))
    finally:
        path.write_bytes(before)


def numbered(names: list[str], first: int = 0) -> dict[str, str]:
    return {str(number): name for number, name in enumerate(names, first)}


def test_names_are_in_the_order_of_their_numbers_not_of_the_text(folder: Path) -> None:
    """A writer that sorts keys puts "10" before "2"."""
    shuffled = dict(sorted(numbered(TWELVE).items()))
    assert list(shuffled)[:3] == ["0", "1", "10"]
    assert looked_at(folder, id2label=shuffled, label2id={}).labels == tuple(TWELVE)
    twice = ["crane", *TWELVE[1:11], "crane"]  # as ImageNet has it: label2id can hold one of them
    foreign = looked_at(folder, id2label=numbered(twice), label2id={"crane": 11})
    assert foreign.labels == tuple(twice) and not any("contradicts" in note for note in foreign.notes)
    foreign = looked_at(folder, id2label=numbered(TWELVE), label2id={"class 3": 4})
    assert foreign.labels == tuple(TWELVE)
    assert "label2id says 'class 3' is class 4, id2label 3, which stands" in " ".join(foreign.notes)


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({"id2label": numbered(TWELVE, first=2)}, "12 names for the classes 2 to 13: none for class 0"),
        ({"id2label": numbered(TWELVE) | {"99": "far"}}, "13 names for the classes 0 to 99: none for class 12"),
        ({"id2label": {"zero": "a"}}, "the key 'zero' of its names is no number of a class"),
        ({"id2label": {"01": "a", "0": "b"}}, "the key '01' of its names is no number of a class"),
    ],
)
def test_names_that_do_not_say_which_is_which_are_refused(folder: Path, said: dict[str, Any], found: str) -> None:
    with pytest.raises(UsageError, match=f"the file config.json beside it does not say which class is which: {found}"):
        looked_at(folder, **({"label2id": {}} | said))


def test_names_numbered_from_1_are_those_of_the_rows_or_leave_the_first_without_one(folder: Path) -> None:
    foreign = looked_at(folder, id2label=numbered(TWELVE, first=1), label2id={})
    assert foreign.labels == tuple(TWELVE) and "numbered from 1" in " ".join(foreign.notes)
    foreign = looked_at(folder, id2label=numbered(TWELVE[1:], first=1), label2id={"class 2": 2})
    assert foreign.labels == ("LABEL_0", *TWELVE[1:]) and "no name is given for class 0" in " ".join(foreign.notes)
    assert "contradicts" not in " ".join(foreign.notes)


def test_names_of_another_head_are_left_out_and_that_is_said(folder: Path) -> None:
    foreign = looked_at(folder, id2label=numbered(TWELVE[:11]), label2id={})
    assert foreign.labels == () and "the files beside it name 11 classes, its head has 12" in " ".join(foreign.notes)


def test_a_head_larger_than_its_names_is_named_to_its_end(tmp_path: Path) -> None:
    """`model.classes` above what the shards have: the files load, and what nothing names says so."""
    source = commit_checkpoint(tmp_path, tiny(classes=5), named=3)
    weights = convert(tmp_path, source, wanted("native", "huggingface"))
    expected = ["class 0", "class 1", "class 2", "LABEL_3", "LABEL_4"]
    files = fetched(weights, tmp_path / "files")
    theirs = transformers.ViTForImageClassification.from_pretrained(files / "huggingface")
    assert [theirs.config.id2label[number] for number in range(5)] == expected
    assert list(open_weights(weights, tmp_path / "scratch").labels) == expected
    with pytest.raises(IntegrityError, match="6 names for a head of 5 classes"):
        convert(tmp_path, commit_checkpoint(tmp_path, tiny(classes=5), node="more", named=6), wanted("native"), "w2")


def test_predicting_with_names_of_a_larger_head_is_refused(tmp_path: Path) -> None:
    weights = convert(tmp_path, commit_checkpoint(tmp_path, tiny(classes=5)), wanted("native"))
    folder = fetched(weights, tmp_path / "files")
    assert list(open_weights(folder, tmp_path).labels) == TWELVE[:5]
    (folder / "labels.json").write_text(json.dumps({"id2label": numbered(TWELVE)}))
    with pytest.raises(IntegrityError, match="12 names for 5 classes"):
        open_weights(folder, tmp_path)


def test_differences_in_words() -> None:
    assert difference("abc", "acb") == "the same 3 names in another order, from number 1 on: 'b' and 'c'"
    assert difference(["Cat", "dog"], ["cat", "dog"], ("A", "B")).endswith(
        "only A has 'Cat'; only B has 'cat' ('Cat' is nearly 'cat')"
    )
    assert "'goldfih' is near 'goldfish'" in difference(["goldfih"], ["goldfish", "ant"])
    composed, apart = "ros\u00e9", "rose\u0301"
    assert "'ros\\xe9' and 'rose\\u0301' are one name in two Unicode forms" in difference([composed], [apart])
    assert same_to_the_eye([composed, "a", apart]) == [(composed, apart)] and not same_to_the_eye(["a", "A", composed])
    for unseen in ("\ufeffcat", "cat\u200b", "c\u00adat"):
        assert same_to_the_eye(["cat", unseen]) == [("cat", unseen)] and same_to_the_eye([unseen, "cat"])
        assert "look the same, but for characters that are not seen" in nearly([unseen], ["cat"])
    assert pairs_alike(["golden_retriever", "Golden  Retriever", "x"]) == [
        "'golden_retriever' is nearly 'Golden  Retriever'"
    ]
    assert alike("007") == alike("7") != alike("70") and not pairs_alike(["a", "b", "ab"])
    assert list(names_by_number({"10": "k", "2": "c"}).items()) == [(2, "c"), (10, "k")]


@pytest.mark.parametrize("name", ["cat", "ros\u00e9", "\u732b", "ros\udce9"])
def test_a_file_of_any_format_holds_any_name(name: str) -> None:
    """Also one that is not UTF-8, as folders' names need not be: such bytes are escaped, as JSON has them."""
    for written in (json_bytes({"0": name}), text({"0": name}).encode()):
        assert json.loads(written) == {"0": name}
        assert (name.encode(errors="ignore") in written) and b"?" not in written
