"""What verbs share about their tasks: the end of a fan-out, what a node was given, and data without its test split.

Knows no verb and no cluster: a fan-out is an iterable of finished tasks.
"""

from collections.abc import Collection, Generator, Iterable, Iterator, Mapping

from vitpipe.infra.errors import UsageError, gravest
from vitpipe.infra.work import Done, Item, Result
from vitpipe.stages.artifacts import Artifact, Score, ShardSet, Weights, carries_weights
from vitpipe.stages.contract import Inputs


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
    asked: str, splits: Mapping[str, int], needed: Collection[str], *, multi_label: bool, classes: int | None = None
) -> None:
    """UsageError for a set that has no image in a needed split, a single class, or several classes per image.

    `splits` counts images; `classes` is None, and `multi_label` False, where they do not matter.
    """
    if missing := [name for name in needed if not splits.get(name)]:
        listed = ", ".join(f"{name} ({count})" for name, count in splits.items())
        found = f"it has no split {missing[0]}{f', only {listed}' if listed else ''}"
        raise UsageError(asked, found, f"ingest it with a split {missing[0]}")
    if classes is not None and classes < 2:
        raise UsageError(asked, f"it has a single class: {classes}", "give a data set with two or more")
    if multi_label:
        raise UsageError(asked, "its images have several classes each", "give a data set with one class per image")


def without_test(data: ShardSet) -> ShardSet:
    """Leave out the test split's files: a task that has still to choose cannot read them."""
    return data.model_copy(update={"files": tuple(file for file in data.files if not file.path.startswith("test-"))})
