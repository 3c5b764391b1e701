"""What verbs share about their tasks: the end of a fan-out, what a node was given, and data of which
only the training split can be read.

Knows no verb and no cluster: a fan-out is an iterable of finished tasks.
"""

from collections.abc import Collection, Generator, Iterable, Iterator, Mapping

from vitpipe.infra.errors import UsageError, gravest
from vitpipe.infra.work import Done, Item, Result
from vitpipe.stages.artifacts import Artifact, Score, ShardSet, Weights, carries_weights
from vitpipe.stages.contract import Inputs
from vitpipe.stages.estimates import Estimate

TRAIN = "train"
"""The split that is trained on."""


def gather(ended: Iterable[Done[Item, Result]]) -> Iterator[tuple[Item, Result]]:
    """Yield item and result of each task that succeeds, as it ends; raise the gravest error once all have ended.

    What the others finish meanwhile need not be done again. Whoever stops taking results ends the tasks that still run.
    """
    errors: list[Exception] = []
    try:
        for done in ended:
            if done.error is None:
                yield done.item, done.value()
            else:
                errors.append(done.error)
    finally:
        if isinstance(ended, Generator):
            ended.close()
    if errors:
        raise gravest(errors)


def weights_in(inputs: Inputs, asked: str, name: str = "weights") -> Weights | Score | None:
    """Find the weights that a node was given; None for a node without that input.

    UsageError for an artifact that carries none; `asked` is how its words begin: `fine-tune`.
    """
    given = inputs.maybe(name, Artifact)
    if given is None or carries_weights(given):
        return given
    do = "give Weights, or a finetune's Score"
    raise UsageError(f"{asked} from {given.uri}", f"it is a {given.kind} without weights", do)


def check_data(
    asked: str,
    splits: Mapping[str, int],
    needed: Collection[str],
    *,
    multi_label: bool,
    classes: int | None = None,
    scored: str | None = None,
) -> None:
    """UsageError for a set that has no image in a needed split, a single class, or several classes per image.

    `splits` counts images; `classes` is None, and `multi_label` False, where they do not matter. `scored` is the needed
    split that the field `split` of the config names: where it is missing, the remedy names one that is there.
    """
    if missing := [name for name in needed if not splits.get(name)]:
        listed = ", ".join(f"{name} ({count})" for name, count in splits.items())
        found = f"it has no split {missing[0]}{f', only {listed}' if listed else ''}"
        others = [name for name, count in splits.items() if count and name != TRAIN and missing[0] == scored]
        instead = f"set `split: {min(others, key=lambda name: name not in ('val', 'test'))}`, or " if others else ""
        raise UsageError(asked, found, f"{instead}ingest it with a split {missing[0]}")
    if classes is not None and classes < 2:
        raise UsageError(asked, f"it has a single class: {classes}", "give a data set with two or more")
    if multi_label:
        raise UsageError(asked, "its images have several classes each", "give a data set with one class per image")


def check_labelled(asked: str, classes: int | None) -> None:
    """UsageError for a set without classes, by their number; None is one that is not known yet."""
    if classes == 0:
        found = "its images have no classes: it was ingested with `labels: none`"
        do = "give a set with classes; of this one only the objectives mae and masked_patch can learn"
        raise UsageError(asked, found, do)


def planned_splits(data: ShardSet | Estimate) -> dict[str, int] | None:
    """Images of each split, as far as a plan knows; a share so small that it rounds to none still counts as one."""
    if isinstance(data, ShardSet) or data.splits is None:
        return data.splits
    return {name: max(1, count) for name, count in data.splits.items()}


def train_alone(data: ShardSet) -> ShardSet:
    """Leave out the files of every other split: a task that has still to choose cannot read what will be scored."""
    others = tuple(f"{name}-" for name in data.splits if name != TRAIN)
    return data.model_copy(update={"files": tuple(file for file in data.files if not file.path.startswith(others))})
