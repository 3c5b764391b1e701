"""README.md beside the page: the Hub's front matter, the scores, how to load the model, what it wants, whose it is."""

from collections.abc import Sequence
from dataclasses import dataclass

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from vitpipe.stages.artifacts import Score, Weights, carries_weights
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.paper.tables import published, title
from vitpipe.stages.report.record_lineage import LineageNode
from vitpipe.stages.report.results import ScoreRow

LANDMARK = ("ViT-L/16", "ImageNet-21k")
"""Whose numbers stand in the card beside ours: the paper's best model on data that others have too."""

_CARD = """---
{metadata}
---

# {heading}

{sentence}.

{table}
{loading}
A Vision Transformer (Dosovitskiy et al., 2021) trained by vitpipe. `index.html` beside this file tells how,
down to the digest of every input; `results.csv` holds the numbers.

Run: `{run_uri}`
"""

_LOADING = """## Use

```python
import vitpipe

vitpipe.load("{path}").predict("photo.jpg")
```
{others}
- Input: RGB, {image_px} x {image_px} px{fit}; `load` prepares any image so.
- Licence of the weights: {license}
- Licences of the images are their owners'; for a benchmark, `vitpipe events` has what its authors state.
"""
_TIMM = """
```python
import timm  # after `vitpipe artifacts get {run_uri} {node} model`

timm.create_model("local-dir:model/timm", pretrained=True)
```
"""
_HUGGINGFACE = """
```python
from transformers import ViTForImageClassification  # after `vitpipe artifacts get {run_uri} {node} model`

ViTForImageClassification.from_pretrained("model/huggingface")
```
"""
_FITS = {"squash": ", squashed to a square", "none": ", not resized"}


@dataclass(frozen=True)
class Loading:
    """The model that a card is about."""

    uri: str
    model: ModelSettings
    formats: tuple[str, ...]
    license: str | None
    fit: str = ""


def loading(lineage: Sequence[LineageNode], scores: Sequence[Score]) -> Loading | None:
    """Choose the fine-tuned model of the first score that carries one, else the newest weights; None without any."""
    licenses = {node.uri: node.record.config.get("license") for node in lineage if node.record}
    for score in scores:
        if carries_weights(score) and score.model is not None:
            fit = _FITS.get(str(score.protocol.get("eval_resize")), "")
            return Loading(score.uri, score.model, ("native",), licenses.get(str(score.protocol.get("weights"))), fit)
    for node in reversed(lineage):
        made = node.artifact()
        if isinstance(made, Weights):
            return Loading(made.uri, made.model, tuple(made.formats), licenses.get(node.uri))
    return None


def model_card(
    heading: str, sentence: str, table: Sequence[ScoreRow], run_uri: str, chosen: Loading | None = None
) -> bytes:
    """Write README.md for the Hub: scores as `model-index`, how to load, prose and where to look."""
    data = ModelCardData(
        library_name="timm" if chosen is None or "timm" in chosen.formats else "vitpipe",
        pipeline_tag="image-classification",
        tags=["vision-transformer", "vitpipe"],
        license=chosen.license if chosen else None,
        model_name=heading,
        eval_results=evaluations(table),
    )
    card = _CARD.format(
        metadata=data.to_yaml(),
        heading=heading,
        sentence=sentence,
        table=score_table(table),
        loading=_loading(chosen) if chosen else "",
        run_uri=run_uri,
    )
    return str(ModelCard(card)).encode(errors="backslashreplace")


def evaluations(table: Sequence[ScoreRow]) -> list[EvalResult]:
    """List the scores as the Hub's `model-index` has them."""
    return [
        EvalResult(
            task_type="image-classification",
            dataset_type=row.benchmark,
            dataset_name=title(row.benchmark),
            dataset_split=row.split,
            metric_type="accuracy",
            metric_name=f"top-1, {row.arm}",
            metric_value=round(100 * row.value, 3),
        )
        for row in table
    ]


def score_table(table: Sequence[ScoreRow]) -> str:
    """Write the scores as a table in Markdown, the paper's beside them where it has one."""
    beside = [_paper(row) for row in table]
    wide = any(beside)
    landmark = f" the paper's {' on '.join(LANDMARK)} |" if wide else ""
    rows = (
        f"| {title(row.benchmark)} | {row.arm} | {row.labels} | {row.text} |{f' {paper} |' if wide else ''}\n"
        for row, paper in zip(table, beside, strict=True)
    )
    return f"| benchmark | arm | labels | top-1 |{landmark}\n|---|---|---|---|{'---|' if wide else ''}\n{''.join(rows)}"


def _loading(chosen: Loading) -> str:
    known = {"timm": _TIMM, "huggingface": _HUGGINGFACE}
    run, _, node = chosen.uri.rpartition("/")
    others = [text.format(run_uri=run, node=node) for name, text in known.items() if name in chosen.formats]
    return _LOADING.format(
        path=chosen.uri.removeprefix("file://"),
        others="".join(others),
        image_px=chosen.model.image_px,
        fit=chosen.fit,
        license=chosen.license or "not given: add one (`license` of the convert node, or `license:` above)",
    )


def _paper(row: ScoreRow) -> str:
    """The paper's number for its best model on public data, beside what was fine-tuned."""
    numbers = published(row.benchmark) if row.kind == "pretrained" and row.split == "test" else []
    found = next((one for one in numbers if (one.model, one.pretrained_on) == LANDMARK), None)
    return f"{found.value:.2f} % ({found.table})" if found else ""
