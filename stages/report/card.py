"""What other tools read: report.json, results.csv with timm's columns first, a card with the Hub's front matter."""

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from vitpipe.stages.paper.tables import published, title
from vitpipe.stages.report.gallery import Inspection
from vitpipe.stages.report.record_lineage import Link
from vitpipe.stages.report.results import Gain, Row
from vitpipe.stages.vit.config import ModelSettings
from vitpipe.stages.vit.flops import num_parameters

_PIXELS = {"filters": {"uri"}, "positions": {"uri"}, "rollout": {"uri"}}
COLUMNS = (
    "model", "img_size", "top1", "top1_err", "param_count", "crop_pct", "interpolation",
    "benchmark", "arm", "top1_std", "seeds", "num_test", "labels", "chosen", "record_sha256",
)  # fmt: skip
"""timm's `results-*.csv` columns that we have, then our own. Percent; parameters in millions."""


LANDMARK = ("ViT-L/16", "ImageNet-21k")
"""Whose numbers stand in the card beside ours: the paper's best model on data that others have too."""


def report_json(
    sentence: str, table: Sequence[Row], found: Sequence[Gain], links: Sequence[Link], inside: Inspection | None
) -> bytes:
    """The page's facts, for programs; of what was seen inside the model, the numbers."""
    content: dict[str, Any] = {
        "schema": 1,
        "headline": sentence,
        "results": [
            {
                "node": row.node,
                "benchmark": row.benchmark,
                "arm": row.arm,
                "value": row.value,
                "std": row.std,
                "per_seed": row.per_seed,
                "by_shots": {str(one.shots): one.per_seed for one in row.more},
                "chosen": row.chosen,
                "dev_scores": row.dev_scores,
                "num_test": row.num_test,
                "protocol": row.protocol,
                "record_sha256": row.record_sha256,
            }
            for row in table
        ],
        "gains": [
            {
                "pretrained": gain.pretrained.node,
                "scratch": gain.scratch.node,
                "points": gain.points,
                "std": gain.std,
                "clear": gain.clear,
            }
            for gain in found
        ],
        "lineage": [
            {
                "node": link.name,
                "uri": link.uri,
                "record_sha256": link.record_sha256,
                "seconds": link.record.seconds if link.record else None,
                "planned_seconds": link.planned_seconds,
            }
            for link in links
        ],
        "inside": json.loads(inside.model_dump_json(exclude=_PIXELS)) if inside else None,
    }
    return (json.dumps(content, indent=1) + "\n").encode()


def results_csv(table: Sequence[Row]) -> bytes:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in table:
        model = ModelSettings.model_validate(row.model) if row.model else None
        writer.writerow({
            "model": model_name(model) if model else row.node,
            "img_size": row.protocol.get("image_px", ""),
            "top1": f"{100 * row.value:.3f}",
            "top1_err": f"{100 - 100 * row.value:.3f}",
            "param_count": f"{num_parameters(model) / 1e6:.2f}" if model else "",
            "crop_pct": "1.0" if row.protocol.get("eval_resize") in ("squash", "none") else "0.875",
            "interpolation": "bilinear",
            "benchmark": row.benchmark,
            "arm": row.arm,
            "top1_std": f"{100 * row.std:.3f}" if row.std is not None else "",
            "seeds": len(row.per_seed),
            "num_test": row.num_test,
            "labels": row.labels,
            "chosen": " ".join(f"{name}={value}" for name, value in row.chosen.items()),
            "record_sha256": row.record_sha256,
        })  # fmt: skip
    return buffer.getvalue().encode()


def model_card(heading: str, sentence: str, table: Sequence[Row], run_uri: str) -> bytes:
    """README.md for the Hub: scores as `model-index`, prose and where to look."""
    results = [
        EvalResult(
            task_type="image-classification",
            dataset_type=row.benchmark,
            dataset_name=title(row.benchmark),
            dataset_split="test",
            metric_type="accuracy",
            metric_name=f"top-1, {row.arm}",
            metric_value=round(100 * row.value, 3),
        )
        for row in table
    ]
    data = ModelCardData(
        library_name="timm",
        pipeline_tag="image-classification",
        tags=["vision-transformer", "vitpipe"],
        model_name=heading,
        eval_results=results,
    )
    lines = [f"| {title(row.benchmark)} | {row.arm} | {row.labels} | {row.text} | {_paper(row)} |" for row in table]
    body = "\n".join([
        "---", data.to_yaml(), "---", "", f"# {heading}", "", f"{sentence}.", "",
        f"| benchmark | arm | labels | top-1 | the paper's {' on '.join(LANDMARK)} |", "|---|---|---|---|---|", *lines,
        "",
        "A Vision Transformer (Dosovitskiy et al., 2021) trained by vitpipe. `index.html` beside this file tells how,",
        "down to the digest of every input; `results.csv` holds the numbers.", "", f"Run: `{run_uri}`", "",
    ])  # fmt: skip
    return str(ModelCard(body)).encode()


def _paper(row: Row) -> str:
    """The paper's number for its best model on public data, beside what was fine-tuned."""
    numbers = published(row.benchmark) if row.kind == "pretrained" else []
    found = next((one for one in numbers if (one.model, one.pretrained_on) == LANDMARK), None)
    return f"{found.value:.2f} % ({found.table})" if found else ""


def model_name(model: ModelSettings) -> str:
    """timm's way of naming: `vit_base_patch16_224`; hybrids and ResNets by their own, explicit sizes by numbers."""
    if not isinstance(model.variant, str):
        sizes = model.sizes
        return f"vit_l{sizes.layers}_w{sizes.width}_patch{sizes.patch_px}_{model.image_px}"
    if model.family != "vit":
        return f"{model.variant.lower().replace('+', '_').replace('/', '_')}_{model.image_px}"
    names = {"Ti": "tiny", "S": "small", "B": "base", "L": "large", "H": "huge", "g": "giant", "G": "gigantic"}
    return f"vit_{names[model.variant.split('/')[0]]}_patch{model.sizes.patch_px}_{model.image_px}"
