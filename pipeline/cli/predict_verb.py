"""The verb that predicts: on this machine, without Ray, each image shown as soon as it is answered."""

from pathlib import Path
from typing import Annotated, Any

import typer

from vitpipe.infra.errors import UsageError
from vitpipe.pipeline.cli.plan_verbs import AsJson
from vitpipe.pipeline.cli.terminal import complain, is_terminal, print_json, say

predictions = typer.Typer()
MANY = 20
"""More images than this get a bar."""


@predictions.command()
def predict(
    weights: Annotated[
        str,
        typer.Argument(
            metavar="WEIGHTS",
            help="A folder of native weights, a node's URI, RUN/NODE, or hf://owner/name.",
            show_default=False,
        ),
    ],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Files or folders.", show_default=False)],
    top: Annotated[int, typer.Option(min=1, help="Classes shown of each image.")] = 5,
    as_json: AsJson = False,
) -> int:
    """Name the top classes of images, or of all in a folder, with any Weights or Score."""
    from vitpipe.pipeline.cli import display
    from vitpipe.pipeline.cli.bars import counting_bar
    from vitpipe.pipeline.cli.predictions import Answers

    answers = Answers.of(weights, images, top, complain)
    plain = not as_json and not is_terminal()
    with counting_bar("predict", len(answers.images), hidden=as_json or len(answers.images) <= MANY) as count:
        for answer in count(answers):
            if plain:
                say(repr(answer))
    error = _error(answers.unreadable)
    if as_json:
        wrong: dict[str, Any] = {"error": error.to_json()} if error else {}
        print_json({**answers.to_json(), **wrong})
        return error.code if error else 0
    if not plain:
        display.show(display.prediction_table(answers.given, answers.head))
    if error:
        raise error
    return 0


def _error(unreadable: list[tuple[Path | str, str]]) -> UsageError | None:
    if not unreadable:
        return None
    listed = "; ".join(f"{path}: {reason}" for path, reason in unreadable[:5])
    more = f"; and {len(unreadable) - 5} more" if len(unreadable) > 5 else ""
    noun = "image" if len(unreadable) == 1 else "images"
    return UsageError(f"predict {len(unreadable)} {noun}", f"not readable: {listed}{more}", "the others are predicted")
