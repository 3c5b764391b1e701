"""What other tools read: report.json, and results.csv with timm's columns first."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.preparation import Preparation
from vitpipe.stages.report.gallery import Inspection
from vitpipe.stages.report.record_lineage import LineageNode, rests_on
from vitpipe.stages.report.results import Gain, ScoreRow
from vitpipe.stages.vit.flops import num_parameters

_PIXELS = {"filters": {"uri"}, "positions": {"uri"}, "rollout": {"uri"}}
COLUMNS = (
    "model", "img_size", "top1", "top1_err", "param_count", "crop_pct", "interpolation",
    "benchmark", "arm", "top1_std", "seeds", "num_test", "labels", "chosen", "record_sha256",
    "run", "node", "started", "seconds", "upstream_seconds", "settings",
)  # fmt: skip
"""timm's `results-*.csv` columns that we have, then our own, then what tells a line from that of another run.

Percent; parameters in millions."""


def report_json(
    sentence: str,
    table: Sequence[ScoreRow],
    found: Sequence[Gain],
    lineage: Sequence[LineageNode],
    inside: Inspection | None,
) -> bytes:
    """Encode the page's facts for programs; of what was seen inside the model, the numbers without the pictures."""
    content: dict[str, Any] = {
        "schema": 1,
        "headline": sentence,
        "results": [
            _fields(row, "node", "benchmark", "arm", "value", "std", "per_seed")
            | {"by_shots": {str(shots): per_seed for shots, per_seed in row.by_shots.items()}}
            | _fields(row, "chosen", "dev_scores", "num_test", "protocol", "record_sha256")
            for row in table
        ],
        "gains": [
            {"pretrained": gain.pretrained.node, "scratch": gain.scratch.node} | _fields(gain, "points", "std", "clear")
            for gain in found
        ],
        "lineage": [
            {"node": node.name, "uri": node.uri, "record_sha256": node.record_sha256}
            | {"seconds": node.record.seconds if node.record else None, "planned_seconds": node.planned_seconds}
            for node in lineage
        ],
        "inside": json.loads(inside.model_dump_json(exclude=_PIXELS)) if inside else None,
    }
    return (json.dumps(content, indent=1) + "\n").encode()


def results_csv(table: Sequence[ScoreRow], run_uri: str, lineage: Sequence[LineageNode]) -> bytes:
    """Encode one line a score under `COLUMNS`; files of several runs can be put behind each other."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_csv_line(row) | {"run": run_uri} | _provenance(row, lineage) for row in table)
    return buffer.getvalue().encode(errors="backslashreplace")


def model_name(model: ModelSettings) -> str:
    """Name a model as timm does: `vit_base_patch16_224`; hybrids and ResNets as we do, explicit sizes by numbers."""
    if not isinstance(model.variant, str):
        sizes = model.sizes
        return f"vit_l{sizes.layers}_w{sizes.width}_patch{sizes.patch_px}_{model.image_px}"
    if model.family != "vit":
        return f"{model.variant.lower().replace('+', '_').replace('/', '_')}_{model.image_px}"
    names = {"Ti": "tiny", "S": "small", "B": "base", "L": "large", "H": "huge", "g": "giant", "G": "gigantic"}
    return f"vit_{names[model.variant.split('/')[0]]}_patch{model.sizes.patch_px}_{model.image_px}"


def _fields(facts: ScoreRow | Gain, *names: str) -> dict[str, Any]:
    return {name: getattr(facts, name) for name in names}


def _csv_line(row: ScoreRow) -> dict[str, Any]:
    model = row.model
    return {
        "model": model_name(model) if model else row.node,
        "img_size": row.protocol.get("image_px", ""),
        "top1": f"{100 * row.value:.3f}",
        "top1_err": f"{100 - 100 * row.value:.3f}",
        "param_count": f"{num_parameters(model) / 1e6:.2f}" if model else "",
        **_prepared(row),
        "top1_std": f"{100 * row.std:.3f}" if row.std is not None else "",
        "seeds": len(row.per_seed),
        "chosen": " ".join(f"{name}={value}" for name, value in row.chosen.items()),
    } | _fields(row, "benchmark", "arm", "num_test", "labels", "record_sha256")


def _prepared(row: ScoreRow) -> dict[str, str]:
    """How an image got to its size, in timm's words."""
    if said := row.protocol.get("preparation"):
        way, image_px = Preparation.model_validate(said), row.protocol["image_px"]
        share = image_px / (way.resize_px or image_px)
        return {"crop_pct": f"{share:.3f}", "interpolation": way.interpolation}
    is_whole = row.protocol.get("eval_resize") in ("squash", "none")
    return {"crop_pct": "1.0" if is_whole else "0.875", "interpolation": "bilinear"}


def _provenance(row: ScoreRow, lineage: Sequence[LineageNode]) -> dict[str, Any]:
    """What tells a score from the same node's in another run: its time, and every setting that is not the default."""
    behind = [(node.name, node.record) for node in rests_on(row.record_sha256, lineage) if node.record]
    own = [record for _, record in behind if record.node == row.node]
    settings = [f"{name}.{field}" for name, record in behind for field in _settings(record.recipe.get("config", {}))]
    return {
        "node": row.node,
        "started": own[-1].started if own else "",
        "seconds": own[-1].seconds if own else "",
        "upstream_seconds": round(sum(record.seconds for _, record in behind) - sum(one.seconds for one in own), 3),
        "settings": "; ".join(settings),
    }


def _settings(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _settings(inner, f"{path}.{name}" if path else name)
    elif path:
        yield f"{path}={value if isinstance(value, str) else json.dumps(value)}"
