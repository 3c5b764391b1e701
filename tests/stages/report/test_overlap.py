"""The table of overlaps says what ingest left out, of which set, and shows the doubtful pairs."""

import pytest
from inprocess import CollectedEvents, commit, make_context
from lookalikes import copies, jpeg, scene
from photos import write
from synthetic import checkpoint, shards

from vitpipe.stages.contract import Inputs
from vitpipe.stages.ingest.choose import near
from vitpipe.stages.ingest.config import IngestConfig, IngestResources
from vitpipe.stages.ingest.run import run as run_ingest
from vitpipe.stages.report.config import ReportConfig, ReportResources
from vitpipe.stages.report.overlap import Overlap, overlaps
from vitpipe.stages.report.record_lineage import walk
from vitpipe.stages.report.run import run


def ingested(path, node, config, **inputs):
    ctx = make_context(path, node, IngestResources())
    made = run_ingest(IngestConfig.model_validate(config), Inputs(inputs), ctx)
    return commit(ctx, made, stage="ingest", config=config, inputs=inputs)


def test_copies_of_held_out_images_stand_in_the_table_and_on_the_sheet(tmp_path):
    for number in range(4):
        write(tmp_path / f"held/a/{number}.jpg", jpeg(scene(number)))
        write(tmp_path / f"train/a/own-{number}.jpg", jpeg(scene(100 + number)))
    for number in range(2):
        kinds = dict(copies(scene(number)))
        write(tmp_path / f"train/a/{number}-small.jpg", kinds["resized"])
        write(tmp_path / f"train/a/{number}-corner.jpg", kinds["corner"])
    write(tmp_path / "train/a/same.jpg", jpeg(scene(3)))
    write(tmp_path / "train/a/twice.jpg", jpeg(scene(100)))
    write(tmp_path / "train/b/other-class.jpg", jpeg(scene(101)))
    held = ingested(tmp_path, "held", {"source": {"kind": "folder", "root": f"{tmp_path}/held"}, "splits": {"test": 1}})
    source = {"kind": "folder", "root": f"{tmp_path}/train"}
    train = ingested(tmp_path, "train", {"source": source, "deduplicate": {"near": {"hamming": 4}}}, exclude=[held])
    found = overlaps(walk([train]))
    assert found.rows == (
        Overlap("train", "", equal_bytes=2, equal_pixels=0, near=0, of=2, other_labels=1),
        Overlap("train", held.uri, equal_bytes=0, equal_pixels=1, near=4, of=3, other_labels=0),
    )
    ((name, sheet),) = found.sheets
    assert name == "train" and sheet.startswith("data:image/png;base64,")

    ctx = make_context(tmp_path, "table", ReportResources())
    report = run(ReportConfig(), Inputs({"scores": (), "checkpoint": (checkpoint(tmp_path),), "shards": (train,)}), ctx)
    page = ctx.out.node.read(report.file("index.html").at).decode()
    assert sheet in page and "Contamination" in page


def test_a_set_that_was_compared_and_is_clean_says_so(tmp_path):
    for number in range(3):
        write(tmp_path / f"held/a/{number}.jpg", jpeg(scene(number)))
        write(tmp_path / f"train/a/{number}.jpg", jpeg(scene(50 + number)))
    held = ingested(tmp_path, "held", {"source": {"kind": "folder", "root": f"{tmp_path}/held"}, "splits": {"test": 1}})
    train = ingested(tmp_path, "train", {"source": {"kind": "folder", "root": f"{tmp_path}/train"}}, exclude=[held])
    assert overlaps(walk([train])).rows == (Overlap("train", held.uri, 0, 0, 0, 0, 0),)
    assert overlaps(walk([shards(tmp_path)])).rows == ()


@pytest.mark.parametrize("most_kept", [1, 1_000])
def test_a_search_that_met_its_cap_is_told(tmp_path, monkeypatch, most_kept):
    monkeypatch.setattr(near, "CROWD", -1e9)  # all are one crowd
    monkeypatch.setattr(near, "MOST_KEPT", most_kept)
    for number in range(3):
        write(tmp_path / f"train/a/{number}.jpg", jpeg(scene(number)))
        write(tmp_path / f"train/a/{number}-small.jpg", dict(copies(scene(number)))["resized"])
    source = {"kind": "folder", "root": f"{tmp_path}/train"}
    train = ingested(tmp_path, "train", {"source": source, "deduplicate": {"near": {"hamming": 4}}})
    told = [
        event for event in CollectedEvents(tmp_path / "local/train/events.jsonl").of("note") if "very many" in event
    ]
    ctx = make_context(tmp_path, "table", ReportResources())
    report = run(ReportConfig(), Inputs({"scores": (), "checkpoint": (checkpoint(tmp_path),), "shards": (train,)}), ctx)
    page = ctx.out.node.read(report.file("index.html").at).decode()
    found = overlaps(walk([train])).in_part
    if most_kept == 1:
        assert found == (("train", 3),) and "3 images may look like so many others" in page
        assert told == [
            "3 images may look like very many that are kept and were compared with the first 1 of these alone: "
            "copies may be left"
        ]
    else:
        assert not found and not told and "may look like so many others" not in page
