"""What verbs share: the end of a fan-out, the wish to stop, the digest of JSON, what a node is given."""

import hashlib
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitpipe.infra.errors import IntegrityError, LeaseLost, StageError, Stopped, UsageError
from vitpipe.infra.work import Done, Job, stop_if_asked
from vitpipe.pipeline.plan.fingerprint import encode
from vitpipe.stages.artifacts import Checkpoint, File, Report, Score, ShardSet, Weights, carries_weights
from vitpipe.stages.contract import Inputs
from vitpipe.stages.estimates import Estimate
from vitpipe.stages.evaluate.config import EvaluateConfig
from vitpipe.stages.evaluate.frozen import description
from vitpipe.stages.evaluate.work_items import EvaluateTask
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.seal import SEAL, broken, canonical, readable, seal_of, sealed
from vitpipe.stages.tasks import check_data, gather, planned_splits, train_alone, weights_in

B16 = {"variant": "B/16", "image_px": 224, "classes": 10, "representation": "none", "pool": "cls"}
"""An architecture as a record of before `position` and the fields behind it would have it."""
DATA = ShardSet(
    manifest_sha256="m",
    num_classes=2,
    splits={"train": 8, "test": 2},
    files=tuple(
        File(path=name, at=name, bytes=1, sha256="0") for name in ("train-0.tar", "test-0.tar", "test-0.index")
    ),
)


def ended(*errors):
    """Tasks 0, 1, ... in the order in which they end; a result is ten times its item."""
    for item, error in enumerate(errors):
        yield Done(item, error=error) if error else Done(item, result=10 * item)


def test_results_come_as_they_end_and_the_gravest_error_once_all_have():
    taken = []
    with pytest.raises(IntegrityError, match="bytes"):
        for pair in gather(ended(None, StageError("a"), IntegrityError("bytes"), None, Stopped("b"))):
            taken.append(pair)
    assert taken == [(0, 0), (3, 30)], "the one after the errors too"
    assert list(gather(ended(None, None))) == [(0, 0), (1, 10)]
    assert list(gather(())) == []


@pytest.mark.parametrize(
    ("errors", "raised"),
    [
        ((LeaseLost("a"), ZeroDivisionError("bug"), IntegrityError("b")), ZeroDivisionError),
        ((StageError("a"), LeaseLost("b"), IntegrityError("c")), LeaseLost),
        ((StageError("first"), StageError("second")), StageError),
    ],
)
def test_a_bug_goes_before_all_that_is_named_and_equals_in_their_order(errors, raised):
    with pytest.raises(raised) as caught:
        list(gather(ended(*errors)))
    assert caught.value is next(error for error in errors if type(error) is raised)


def test_whoever_takes_no_more_results_ends_what_still_runs():
    closed = []

    def running():
        try:
            yield from ended(None, None)
        finally:
            closed.append(True)

    held = running()  # as a traceback may hold it
    for _ in gather(held):
        assert not closed
        break
    assert closed


class Asked:
    """A fence whose driver is asked to end for `reason`."""

    def __init__(self, reason):
        self.reason = reason

    def stopping(self):
        if isinstance(self.reason, Exception):
            raise self.reason
        return self.reason


def test_work_ends_when_asked_and_says_how_far_it_came():
    stop_if_asked(Asked(None), "train")
    Job("r", "n").ask_to_stop()
    with pytest.raises(Stopped) as plain:
        stop_if_asked(Asked("SIGTERM"), "train")
    with pytest.raises(Stopped) as far:
        stop_if_asked(Asked("SIGTERM"), "train", "after step 3 of 9")
    with pytest.raises(Stopped) as of_node:
        Job("r", "n", fence=Asked("SIGTERM")).ask_to_stop()
    assert [one.value.found for one in (plain, far, of_node)] == [
        "SIGTERM",
        "after step 3 of 9: SIGTERM",
        "asked to end: SIGTERM",
    ]
    assert len({one.value.do for one in (plain, far, of_node)}) == 1
    with pytest.raises(LeaseLost):
        stop_if_asked(Asked(LeaseLost("train")), "train")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=25)
@given(st.dictionaries(st.text(), values, max_size=4))
def test_the_canonical_form_is_the_one_that_committed_digests_were_made_of(content):
    """The expressions below stood in the modules that wrote pieces, records and fingerprints until they became one."""
    assert canonical(content) == json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    plain = {key: value for key, value in content.items() if key != SEAL}
    old = hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    assert seal_of(content) == seal_of({SEAL: "another", **plain}) == old
    assert readable(content) == (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()


@settings(max_examples=25)
@given(st.dictionaries(st.text(), values, max_size=4))
def test_a_fingerprint_hashes_the_same_form_but_no_number_that_is_none(content):
    try:
        old = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()
    except ValueError:
        with pytest.raises(ValueError, match="not JSON compliant"):
            encode(content)
    else:
        assert encode(content) == canonical(content) == old


def test_known_digests_of_known_content():
    content = {"rows": [2, 1], "images_per_second": 0.1, "name": "é"}
    assert seal_of(content) == "3172d15aac50acc92a87a9b72ee38db3f01c09bdcd2dc3bb10ca6609d5cdc6d5"
    assert seal_of({**content, "rows": [1, 2]}) != seal_of(content), "one number another"
    assert seal_of(dict(reversed(content.items()))) == seal_of(content), "another order of keys"
    written = sealed(content)
    assert broken(written, json.loads(written)) is None
    assert broken(written, {**json.loads(written), "name": "e"})
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical({"loss": math.nan}, allow_nan=False)


def test_an_architecture_is_written_as_it_was_and_read_as_one():
    facts = ModelSettings.model_validate(B16).model_dump(mode="json")
    made = Checkpoint(folder="step-1", step=1, samples_seen=1, model=facts, shards_sha256=())
    assert isinstance(made.model, ModelSettings) and made.model.sizes.width == 768
    assert json.dumps(made.facts()["model"]) == json.dumps(facts), "the order of fields too"
    assert ModelSettings.model_validate(made.model) is made.model
    with pytest.raises(ValueError, match="unknown variant"):
        Weights(formats=(), model={**facts, "variant": "B/17"})


def test_a_plan_says_of_an_architecture_what_is_not_known():
    planned = Estimate(model=ModelSettings(variant="B/16", image_px=224))
    assert planned.model_dump(mode="json", exclude_none=True) == {
        "model": planned.model.model_dump(mode="json"),
        "notes": [],
    }
    assert planned.model_dump(mode="json")["model"]["classes"] is None


def test_features_of_an_untrained_model_keep_their_key_when_settings_get_a_field():
    weights = Weights(formats=("native",), model=B16)
    about = EvaluateTask(EvaluateConfig(method="fewshot", features="untrained"), DATA, weights, 1, 1, context=None)
    assert description(about, "train", 0)["model"] == B16
    assert description(about, "train", 0)["image_px"] == 224
    whole = weights.model_copy(update={"model": ModelSettings(**weights.model.model_dump())})
    other = EvaluateTask(about.config, DATA, whole, 1, 1, context=None)
    assert description(other, "train", 0)["model"] != B16, "one that names all fields is another"


SCORE = Score(benchmark="b", metric="top1", value=1.0, per_seed=(1.0,), num_test=1)


def test_what_carries_weights_is_taken_and_nothing_else():
    weights, tuned = Weights(formats=(), model=B16), SCORE.model_copy(update={"model": ModelSettings(**B16)})
    assert weights_in(Inputs({}), "fine-tune") is None
    for given_one in (weights, tuned):
        assert weights_in(Inputs({"weights": [given_one]}), "fine-tune") is given_one
    for other in (SCORE, DATA, Report(headline="")):
        assert not carries_weights(other)
        with pytest.raises(UsageError, match=f"it is a {other.kind} without weights"):
            weights_in(Inputs({"init": [other]}), "begin", "init")


def test_data_that_fit_no_score_are_refused_with_what_they_have():
    check_data("score it", DATA.splits, ("train", "test"), multi_label=False, classes=2)
    check_data("score it", DATA.splits, ("test",), multi_label=False)
    with pytest.raises(UsageError, match=r"no split dev, only train \(8\), test \(2\)"):
        check_data("score it", DATA.splits, ("dev",), multi_label=False)
    with pytest.raises(UsageError, match=r"it has no split test\. Ingest"):
        check_data("score it", {}, ("test",), multi_label=False)
    with pytest.raises(UsageError, match="no split test"):
        check_data("score it", {"test": 0}, ("test",), multi_label=False)
    with pytest.raises(UsageError, match=r"only train \(8\), val \(2\)\. Set `split: val`, or ingest"):
        check_data("score it", {"train": 8, "val": 2}, ("train", "test"), multi_label=False, scored="test")
    with pytest.raises(UsageError, match=r"only val \(2\)\. Ingest it with a split train"):
        check_data("score it", {"val": 2}, ("train", "test"), multi_label=False, scored="test")
    with pytest.raises(UsageError, match="single class"):
        check_data("score it", DATA.splits, ("test",), multi_label=False, classes=1)
    with pytest.raises(UsageError, match="several classes each"):
        check_data("score it", DATA.splits, ("test",), multi_label=True)


def test_a_plan_counts_a_split_that_rounds_to_no_image_as_one():
    assert planned_splits(Estimate(splits={"train": 9, "test": 0})) == {"train": 9, "test": 1}
    assert planned_splits(DATA.model_copy(update={"splits": {"test": 0}})) == {"test": 0}, "counted, not reckoned"
    assert planned_splits(Estimate()) is None


def test_nothing_but_the_training_split_is_left_to_who_has_still_to_choose():
    files = (File(path=name, at=name, bytes=1, sha256="0") for name in ("val-0.tar", "val-0.index", "manifest.json"))
    several = DATA.model_copy(update={"splits": {**DATA.splits, "val": 2}, "files": (*DATA.files, *files)})
    assert [file.path for file in train_alone(several).files] == ["train-0.tar", "manifest.json"]
    blind = train_alone(DATA)
    assert [file.path for file in blind.files] == ["train-0.tar"] and DATA.has("test-0.tar")
    with pytest.raises(IntegrityError):
        blind.file("test-0.tar")
    assert blind.manifest_sha256 == DATA.manifest_sha256
