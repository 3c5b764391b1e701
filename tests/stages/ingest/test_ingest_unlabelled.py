"""Images without classes, and what passes through beside them: in every form, into shards that any webdataset reads."""

import json
from dataclasses import replace

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
import webdataset as wds
from class_tars import class_folder, class_tars, outer
from photos import contents, encoded, ingest, picture, write
from small_spec import GOOD
from tars import tar

from vitpipe.infra.errors import IntegrityError, UsageError
from vitpipe.pipeline.plan.fingerprint import canonical
from vitpipe.pipeline.spec.load import load
from vitpipe.stages.estimates import Estimate, Known
from vitpipe.stages.evaluate.config import EvaluateConfig, EvaluateResources
from vitpipe.stages.evaluate.estimate import estimate as estimate_evaluation
from vitpipe.stages.finetune.config import FinetuneConfig, FinetuneResources
from vitpipe.stages.finetune.estimate import estimate as estimate_finetuning
from vitpipe.stages.images.config import AugmentSettings
from vitpipe.stages.images.index import parse_index
from vitpipe.stages.images.iterable import ShardStream
from vitpipe.stages.images.manifest import load_manifest
from vitpipe.stages.images.readback import read_back
from vitpipe.stages.images.train import TrainImages
from vitpipe.stages.ingest.config import IngestConfig, IngestResources
from vitpipe.stages.ingest.estimate import estimate
from vitpipe.stages.ingest.write import writer
from vitpipe.stages.pretrain.config import PretrainConfig, PretrainResources
from vitpipe.stages.pretrain.estimate import estimate as estimate_pretraining

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves its files to the collector
IMAGES = [encoded(picture(number), "JPEG") for number in range(6)]


def img2dataset(folder):
    """Tars as img2dataset leaves them: image, caption and facts of each; one sample lacks its caption."""
    for part in range(2):
        members = []
        for number in range(part * 3, part * 3 + 3):
            key = f"{part:05d}{number:04d}"
            members.append((f"{key}.jpg", IMAGES[number]))
            members.append((f"{key}.json", json.dumps({"url": f"u{number}", "label": "no class"}).encode()))
            members += [] if number == 4 else [(f"{key}.txt", f"caption {number}".encode())]
        tar(folder / f"{part:05d}.tar", members)
    return folder


def sources(base):
    """The same kind of images in every form that can have no classes."""
    for number, name in enumerate(("a.jpg", "deep/down/b.jpg", "deep/c.jpg")):
        write(base / "folder" / name, IMAGES[number])
    tars = class_tars(class_folder(base / "classes", classes=2, each=2), base / "tars")
    tar(base / "jpg-only.tar", [(f"{number}.jpg", data) for number, data in enumerate(IMAGES)])
    rows = {"image": [{"bytes": data, "path": None} for data in IMAGES[:5]], "caption": ["c"] * 5}
    parquet.write_table(arrow.table(rows), base / "rows.parquet", row_group_size=2)
    tar(base / "flat.tar", [("x.jpg", IMAGES[0]), ("y/z.jpg", IMAGES[1])])
    return {
        "folder": ({"kind": "folder", "root": str(base / "folder")}, 3),
        "webdataset": ({"kind": "webdataset", "urls": str(base / "jpg-only.tar")}, 6),
        "parquet": ({"kind": "parquet", "urls": str(base / "rows.parquet")}, 5),
        "img2dataset": ({"kind": "webdataset", "urls": str(img2dataset(base / "laion"))}, 6),
        "class_tars": ({"kind": "class_tars", "urls": str(tars)}, 4),
        "outer": ({"kind": "class_tars", "urls": str(outer(tars, base / "all.tar.gz"))}, 4),
        "tree": ({"kind": "class_tars", "urls": str(base / "flat.tar")}, 2),
    }


KINDS = ("folder", "webdataset", "parquet", "img2dataset", "class_tars", "outer", "tree")


@pytest.mark.parametrize("kind", KINDS)
def test_no_image_has_a_class(tmp_path, kind):
    source, count = sources(tmp_path / "in")[kind]
    given = {"source": {**source, "labels": "none"}, "images_per_shard": 4}
    told = estimate(IngestConfig.model_validate(given), IngestResources(), {}, Known())
    assert (told.images, told.num_classes, told.class_names) == (count, 0, ())
    shards = ingest(tmp_path, given)
    assert (shards.num_classes, shards.multi_label, shards.splits) == (0, False, {"train": count})
    assert load_manifest(shards).classes == () and not contents(shards)["quarantine.jsonl"]
    paths = [str(tmp_path / "store/test/shards" / shards.file(one.path).at) for one in load_manifest(shards).shards]
    for sample in wds.WebDataset(paths, shardshuffle=False):
        assert {name for name in sample if not name.startswith("__")} == {"jpg"}
    images = TrainImages(shards, "train", 16, AugmentSettings(), 0, tmp_path / "cache", labelled=False)
    assert images.micro_batch(0, 2).labels.tolist() == [0, 0]
    stream = ShardStream(shards, 2, 16, cache=tmp_path / "cache")
    assert next(iter(stream))[1].tolist() == [0, 0]
    assert {name for name in next(stream.numbered()) if not name.startswith("__")} == {"jpg"}


def test_what_lies_in_a_bucket_is_known_to_have_none_before_it_is_listed():
    for source in ({"kind": "folder", "root": "s3://a/b"}, {"kind": "webdataset", "urls": "s3://a/b.tar"}):
        given = IngestConfig.model_validate({"source": {**source, "labels": "none"}})
        told = estimate(given, IngestResources(), {}, Known())
        assert (told.num_classes, told.class_names, told.images) == (0, (), None)
        with pytest.raises(UsageError, match="no classes"):
            finetuning(told)


def test_splits_of_a_tree_without_classes(tmp_path):
    for number, name in enumerate(("train/a.jpg", "train/x/b.jpg", "val/c.jpg")):
        write(tmp_path / "in" / name, IMAGES[number])
    source = {"kind": "folder", "root": str(tmp_path / "in"), "labels": "none"}
    assert ingest(tmp_path, {"source": source, "splits": "folders"}).splits == {"train": 2, "val": 1}
    write(tmp_path / "in/loose.jpg", IMAGES[4])
    with pytest.raises(UsageError, match=r"'loose.jpg' stands in no folder of a split"):
        ingest(tmp_path, {"source": source, "splits": "folders"}, node="loose")


def test_tars_without_a_label_are_told_the_way(tmp_path):
    source, _ = sources(tmp_path)["webdataset"]
    with pytest.raises(UsageError, match=r"no sample has a label.*`labels: none`"):
        ingest(tmp_path, {"source": source})


def kept_config(folder, **more):
    source = {"kind": "webdataset", "urls": str(folder), "labels": "none", "keep": ["txt", "json"], **more}
    return {"source": source, "images_per_shard": 4}


def test_captions_and_facts_pass_through(tmp_path):
    given = kept_config(img2dataset(tmp_path / "in"))
    shards = ingest(tmp_path, given)
    paths = [str(tmp_path / "store/test/shards" / shards.file(one.path).at) for one in load_manifest(shards).shards]
    found = {}
    for sample in wds.WebDataset(paths, shardshuffle=False):
        number = IMAGES.index(sample.pop("jpg"))
        found[number] = {name: data for name, data in sample.items() if not name.startswith("__")}
    facts = {n: {"json": json.dumps({"url": f"u{n}", "label": "no class"}).encode()} for n in range(6)}
    assert found == {n: {**facts[n], **({} if n == 4 else {"txt": f"caption {n}".encode()})} for n in range(6)}
    index = parse_index(contents(shards)["train-000000.index"], "index")
    tar_data = contents(shards)["train-000000.tar"]
    for row in range(index.count):
        assert encoded(picture(IMAGES.index(tar_data[index.offset[row] :][: index.size[row]])), "JPEG")
        assert [name for name, _, _ in index.kept_of(row)] in (["txt", "json"], ["json"])


def test_a_class_and_a_caption(tmp_path):
    members = [m for n in range(3) for m in ((f"{n}.jpg", IMAGES[n]), (f"{n}.cls", b"1"), (f"{n}.txt", b"c"))]
    path = tar(tmp_path / "in.tar", members)
    given = {"source": {"kind": "webdataset", "urls": str(path), "keep": ["txt"], "label": "cls"}}
    shards = ingest(tmp_path, given)
    at = str(tmp_path / "store/test/shards" / shards.file("train-000000.tar").at)
    plain = wds.WebDataset(at, shardshuffle=False).decode("pil").to_tuple("jpg;jpeg;png;webp", "cls;json", "txt")
    assert [(label, text) for _, label, text in plain] == [(0, "c")] * 3


def test_what_is_kept_is_taken_over_and_checked(tmp_path, monkeypatch):
    given = kept_config(img2dataset(tmp_path / "in"))
    first = contents(ingest(tmp_path, given))
    monkeypatch.setattr(writer, "_write_tar", None)  # nothing may be written again
    (tmp_path / "store/test/shards/record.json").unlink()
    again = ingest(tmp_path, given, attempt="a2", earlier=("a1",))
    assert contents(again) == first
    index = parse_index(first["train-000000.index"], "index")
    with (tmp_path / "store/test/shards/a1/train-000000.tar").open("rb") as file:
        read_back(file, index, False, "here")
        file.seek(0)
        kept = [[(name, size, "0" * 64) for name, size, _ in row] for row in index.kept]
        with pytest.raises(IntegrityError, match=r"the (txt|json) of .* is not what the index says"):
            read_back(file, replace(index, kept=kept), False, "here")
        file.seek(0)
        with pytest.raises(IntegrityError, match="it should have jpg"):
            read_back(file, replace(index, kept=()), False, "here")


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"keep": ["txt", "txt"]}, "'txt' more than once"),
        ({"keep": ["jpg"]}, "would take it for the image"),
        ({"keep": ["json"]}, "which says the class"),
        ({"keep": ["cls"], "labels": "none"}, "which says the class"),
        ({"keep": ["TXT"]}, "String should match pattern"),
        ({"labels": "none", "classes": 3}, "leave classes and class_names out"),
        ({"labels": "./file.csv"}, "Input should be 'none'"),
    ],
)
def test_what_contradicts_itself_is_refused(fields, told):
    with pytest.raises(ValueError, match=told):
        IngestConfig.model_validate({"source": {"kind": "webdataset", "urls": "x.tar", **fields}})


def test_the_word_is_no_path_and_is_part_of_the_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kinds = ("{kind: folder, root: ./x", "{kind: webdataset, urls: ./x.tar", "{kind: class_tars, urls: ./x")
    for kind in kinds:
        plain, unlabelled = (canonical(ingested(kind + more))["source"] for more in ("", ", labels: none"))
        assert unlabelled == {**plain, "labels": "none"} and "labels" not in plain and "keep" not in plain
    keeps = ingested(f"{kinds[1]}, labels: none, keep: [txt, json]")
    assert canonical(keeps)["source"]["keep"] == ["txt", "json"]
    file = ingested(f"{kinds[0]}, labels: ./none")
    assert file.source.labels == str(tmp_path / "none") and "labels" not in canonical(file)["source"]


def ingested(source):
    """The config of an ingest whose YAML has this source."""
    return load(GOOD.replace("{kind: digits", source)).graph.nodes["data"].config


UNLABELLED = Estimate(images=90, splits={"train": 60, "test": 30}, num_classes=0, class_names=())
MODEL = {"variant": "Ti/16", "image_px": 32}
TRAINING = {"model": MODEL, "batch_images": 30, "total": "2 epochs"}


def pretraining(**changes):
    config = PretrainConfig.model_validate({**TRAINING, **changes})
    return lambda given: estimate_pretraining(config, PretrainResources(), {"shards": (given,)}, Known())


def probed(given):
    config = PretrainConfig.model_validate({**TRAINING, "objective": {"kind": "masked_patch"}})
    return estimate_pretraining(config, PretrainResources(), {"shards": (given,), "probes": (given,)}, Known())


def finetuning(given):
    config = FinetuneConfig.model_validate({"batch_images": 6, "total": "2 steps", "peak_lr": 0.01, "model": MODEL})
    return estimate_finetuning(config, FinetuneResources(), {"data": (given,)}, Known())


def evaluation(method):
    config = EvaluateConfig.model_validate({"method": method, "image_px": 32})
    return lambda given: estimate_evaluation(config, EvaluateResources(), {"data": (given,)}, Known())


@pytest.mark.parametrize(
    "consumer",
    [
        pretraining(),
        pretraining(objective={"kind": "sigmoid"}),
        pretraining(model={**MODEL, "classes": 10}),
        probed,
        finetuning,
        *map(evaluation, ("fewshot", "linear", "knn", "classify", "real")),
    ],
)
def test_whoever_looks_at_classes_refuses_at_plan(tmp_path, consumer):
    source, _ = sources(tmp_path / "in")["webdataset"]
    shards = ingest(tmp_path, {"source": {**source, "labels": "none"}, "splits": {"train": 0.5, "test": 0.5}})
    for given in (UNLABELLED, shards):
        with pytest.raises(UsageError, match=r"no classes.*`labels: none`.*masked_patch") as refused:
            consumer(given)
        assert "\n" not in str(refused.value)


def test_masked_patches_take_them():
    told = pretraining(objective={"kind": "masked_patch"})(UNLABELLED)
    assert told.steps == 4 and told.model is not None and told.model.classes == 0
