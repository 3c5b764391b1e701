"""README.md of a repository on the Hugging Face Hub: of a model with its scores, or of an ingested data set.

Says nothing of where things lie on the machine that pushed them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from huggingface_hub import DatasetCardData, ModelCardData

from vitpipe.infra.storage.hub_names import HubPlace, Kind, hub_place, without_revisions
from vitpipe.stages.artifacts import ShardSet
from vitpipe.stages.images.manifest import Manifest
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.report.card import model_name
from vitpipe.stages.report.model_card import evaluations, score_table
from vitpipe.stages.report.record_lineage import LineageNode
from vitpipe.stages.report.results import ScoreRow

LIBRARIES: Mapping[str, str] = {"huggingface": "transformers", "timm": "timm"}
"""What loads a repository whose first files are of this format; others are opened by vitpipe alone."""
_LOADED = {
    "transformers": (
        'from transformers import ViTForImageClassification\n\nViTForImageClassification.from_pretrained("{repo}")'
    ),
    "timm": 'import timm\n\ntimm.create_model("hf-hub:{repo}", pretrained=True)',
}
_CLASSES_SHOWN = 20

_MODEL = """---
{metadata}
---

# {heading}

{sentence}.

{table}
## Use

{snippets}
- Input: RGB, {image_px} x {image_px} px.
- Formats in this repository: {formats}.
- Licence of the weights: {license}

A model of "An Image is Worth 16x16 Words" (Dosovitskiy et al., 2021), written by vitpipe: the node `{node}` of the run
`{run}`, whose record has the SHA-256 `{record_sha256}`. `results.csv` and `results.json` have the scores and every
setting behind them, `parity.json` (of a converted model) the proof of each format, `vitpipe.json` the digest of every
file.
"""
_SNIPPET = "```python\n{code}\n```\n"
_DATA = """---
{metadata}
---

# {heading}

{images} images of {classes} classes{named}, as WebDataset tars with an index beside each; `manifest.json` lists them in
order and says the classes. Licences of the images are their owners'.

```python
from datasets import load_dataset

load_dataset("{repo}", streaming=True)
```

Ingested by vitpipe: the node `{node}` of the run `{run}`, whose record has the SHA-256 `{record_sha256}`.
"""


@dataclass(frozen=True)
class Origins:
    """What is pushed, and from where."""

    repo: str
    run: str
    node: str
    record_sha256: str


def hub_model_card(
    origins: Origins,
    model: ModelSettings,
    formats: Sequence[str],
    license: str | None,
    sentence: str,
    table: Sequence[ScoreRow],
    lineage: Sequence[LineageNode],
) -> bytes:
    """Write the card of a model; the first of `formats` is that of the repository's own files."""
    library = LIBRARIES.get(formats[0], "vitpipe")
    taken = [dict(node.record.output.get("commits", {})) for node in lineage if node.record]
    repositories = [hub_place(without_revisions(place)) for commits in taken for place in commits]
    data = ModelCardData(
        library_name=library,
        pipeline_tag="image-classification",
        tags=["vision-transformer", "vitpipe"],
        license=license,
        model_name=model_name(model),
        metrics=["accuracy"] if table else None,
        datasets=_names(repositories, "dataset"),
        base_model=_names(repositories, "model"),
        eval_results=evaluations(table) or None,
    )
    ours = "" if formats[0] == "native" else "/native"
    snippets = [_LOADED[library].format(repo=origins.repo)] if library in _LOADED else []
    if "native" in formats:
        snippets.append(f'import vitpipe\n\nvitpipe.load("hf://{origins.repo}{ours}").predict("photo.jpg")')
    card = _MODEL.format(
        metadata=data.to_yaml(),
        heading=model_name(model),
        sentence=sentence,
        table=score_table(table) if table else "",
        snippets="\n".join(_SNIPPET.format(code=code) for code in snippets),
        image_px=model.image_px,
        formats=", ".join(formats),
        license=license or "not given: add one (`license` of the convert node, or `license:` above)",
        node=origins.node,
        run=origins.run,
        record_sha256=origins.record_sha256,
    )
    return card.encode(errors="backslashreplace")


def hub_data_card(origins: Origins, shards: ShardSet, manifest: Manifest) -> bytes:
    """Write the card of a data set: its splits by their tars, as the Hub's viewer and `datasets` read them."""
    files = [{"split": _split_name(split), "path": f"{split}-*.tar"} for split in shards.splits]
    data = DatasetCardData(
        task_categories=["image-classification"],
        tags=["webdataset", "vitpipe"],
        configs=[{"config_name": "default", "data_files": files}],
    )
    shown = ", ".join(manifest.classes[:_CLASSES_SHOWN]) + (", ..." if len(manifest.classes) > _CLASSES_SHOWN else "")
    card = _DATA.format(
        metadata=data.to_yaml(),
        heading=origins.repo.partition("/")[2],
        images=f"{sum(shards.splits.values()):,}",
        classes=len(manifest.classes),
        named=f" ({shown})" if shown else "",
        **vars(origins),
    )
    return card.encode(errors="backslashreplace")


def _split_name(split: str) -> str:
    """As `datasets` takes it: it knows no hyphen in a split's name."""
    return split.replace("-", "_")


def _names(repositories: Sequence[HubPlace], kind: Kind) -> list[str] | None:
    return sorted({place.repo for place in repositories if place.kind == kind}) or None
