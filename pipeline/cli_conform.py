"""The verb that holds a spec against the paper."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.terminal import print_json, say

paper = typer.Typer()

DEVIATES = 3


@paper.command()
def conform(
    spec: Annotated[Path, typer.Argument(help="The YAML.", show_default=False)],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[a.b=c ...]", help="As for run.", show_default=False)
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="ImageNet-21k, ImageNet or JFT-300M, instead of `vars.paper`."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")] = False,
) -> int:
    """Compare each recipe with the paper's, field by field: equal, differs, or unstated with our assumption.

    A pretraining is held against the row of Table 3 that has its variant and the data set named by
    `vars: {paper: ImageNet-21k}` in the YAML (no fingerprint sees it); without that, against the nearest row.
    A fine-tuning is held against Table 4 by the name of its data: `needs: {data: cifar10}`.
    Ends with 3 when a field differs.
    """
    from pipeline import conform as conforming
    from pipeline.spec import load

    found = load(spec, overrides or ())
    compared = conforming.conform(found.graph, conforming.claimed_data(found.vars, data))
    deviations = sum(len(one.compared.deviations) for one in compared)
    if as_json:
        print_json({"run": found.uri, "deviations": deviations, "nodes": [one.to_json() for one in compared]})
    else:
        for one in compared:
            say("\n".join(one.lines()))
        if not compared:
            say(f"{spec}: no node pretrains, or fine-tunes from weights; the paper has no recipe for the rest")
    return DEVIATES if deviations else 0
