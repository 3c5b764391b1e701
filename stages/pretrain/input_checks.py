"""What shards, probes and given weights must be for a pretraining; a plan and the driver ask the same. No torch."""

from collections.abc import Mapping

from vitpipe.infra.errors import UsageError
from vitpipe.stages.artifacts import ShardSet
from vitpipe.stages.estimates import Estimate
from vitpipe.stages.images.class_match import join
from vitpipe.stages.images.classes import difference, moved_name
from vitpipe.stages.model_settings import ModelSettings, other_function
from vitpipe.stages.pretrain.config import VALIDATION, PretrainConfig, held_out
from vitpipe.stages.pretrain.job import SPLIT
from vitpipe.stages.tasks import check_data, check_labelled, planned_splits


def check_init(init: ModelSettings | None, model: ModelSettings, uri: str) -> None:
    """UsageError for weights to begin from that would be another function, or whose head has other classes.

    An encoder without a head fits any.
    """
    if init and (found := other_function(init, model)):
        raise UsageError(f"begin from {uri}", found, "set config.model as these weights have it")
    classes = init.classes if init else 0
    if classes and model.classes and classes != model.classes:
        found = f"its head has {classes} classes, the shards and config.model make {model.classes}"
        do = "give shards of the same classes, weights without a head, or fine-tune these"
        raise UsageError(f"begin from {uri}", found, do)


def check_init_names(uri: str, head: Mapping[int, str], shards: str, classes: Mapping[int, str]) -> str:
    """What a person should know of a head whose rows are taken by number; empty where both name the classes alike.

    UsageError where a class of both has another number in the head than in the shards.
    """
    if moved_name(head, classes) is not None:
        words = difference(tuple(head.values()), tuple(classes.values()), ("its head", "the set"))
        do = "give shards with the same `class_names`, weights without a head, or fine-tune these"
        raise UsageError(f"begin from {uri} on {shards}", f"their classes differ: {words}", do)
    others = [
        f"calls class {number} {head[number]!r}, the shards {name!r}"
        for number, name in classes.items()
        if head.get(number, name) != name
    ]
    others += [] if head else ["names no class"]
    return f"the head of {uri} {others[0]}: its rows are taken by number" if others and classes else ""


def check_classes(uri: str, num_classes: int | None, config: PretrainConfig) -> None:
    """UsageError for a set of one class, of which a softmax learns nothing, and for one of none; None is not known."""
    if config.objective.labelled:
        check_labelled(f"pretrain on {uri} with the objective {config.objective.kind}", num_classes)
    if num_classes == 1 and config.objective.kind == "softmax":
        do = "give images of two or more classes, or set objective.kind to mae or masked_patch, which look at none"
        raise UsageError(f"pretrain on {uri}", "it has a single class: 1", do)


def check_shards(uri: str, splits: Mapping[str, int], multi_label: bool, config: PretrainConfig) -> None:
    """UsageError for a set that the recipe cannot be trained on."""
    if not splits.get(SPLIT):
        found = f"it holds {dict(splits)}, no images to train on"
        raise UsageError(f"pretrain on {uri}", found, f"ingest with a split named {SPLIT}")
    if multi_label and config.objective.kind == "softmax":
        found = "its images have several classes each, a softmax has one"
        raise UsageError(f"pretrain on {uri}", found, "set objective.kind to sigmoid")


def watched_outputs(watched: ShardSet | Estimate, shards: ShardSet | Estimate) -> tuple[int, ...] | None:
    """Which outputs of the model the classes of a set to watch are, by name; None while one's names are not known.

    UsageError for a set that the model's head cannot be tested on.
    """
    uri = watched.uri if isinstance(watched, ShardSet) else "a set of this run"
    asked = f"watch {uri} while training"
    check_labelled(asked, watched.num_classes)
    if splits := planned_splits(watched):
        check_data(asked, splits, (held_out(splits) or VALIDATION[0],), multi_label=False)
    try:
        match = join(watched, shards)
    except UsageError as error:
        do = "give a set of the classes that are trained on, or give it among `probes`, which any classes fit"
        raise UsageError(asked, error.found, do) from error
    return match.outputs if match else None


def check_probe(uri: str, splits: Mapping[str, int], multi_label: bool, classes: int | None) -> None:
    """UsageError for a set that no ridge can be fitted and tested on."""
    check_labelled(f"score {uri} while training", classes)
    needed = (SPLIT, held_out(splits) or VALIDATION[0])
    check_data(f"score {uri} while training", splits, needed, multi_label=multi_label)
