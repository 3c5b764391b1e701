"""One YAML takes each of the models that people have through few-shot and a fine-tuning at another image size."""

import json
from pathlib import Path

from family_files import FAMILIES
from synthetic import shards
from tiny_stages import tiny_ways

from vitpipe.infra.lease_state import Timing
from vitpipe.pipeline.drive.runner import run
from vitpipe.pipeline.spec.load import load
from vitpipe.stages.vit.settings_file import read_settings

QUICK = Timing(renew_s=0.02, watch_s=0.5, commit_s=100, poll_s=0.02, look_s=0.02)

PEOPLE_HAVE = {
    "dinov2": "DINOv2 (`Dinov2Model`)", "dinov2-registers": "DINOv2 with registers", "dinov3": "DINOv3",
    "deit3": "timm's DeiT-III", "eva02": "timm's EVA-02 Ti", "siglip": "SigLIP's and SigLIP 2's vision tower",
    "clip": "CLIP's vision tower", "ijepa": "I-JEPA", "mae": "MAE with its decoder",
}  # fmt: skip
SPEC = """
version: 1
name: families
store: {store}
nodes:
  weights:
    stage: convert
    foreach: {{model: [{models}]}}
    config: {{source: {{path: "{folder}/${{each.model}}", mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}}}}
  tuned:
    stage: finetune
    foreach: {{model: [{models}]}}
    needs: {{data: "{store}/test/photos", weights: weights}}
    config: {{image_px: 48, position_resize: huggingface, batch_images: 8, total: 2 steps, peak_lr: 0.01, seeds: [0],
             precision: fp32}}
  probe:
    stage: evaluate
    foreach: {{model: [{models}]}}
    needs: {{data: "{store}/test/photos", weights: weights}}
    config: {{method: fewshot, shots: [2], seeds: [0]}}
  table: {{stage: report, needs: {{scores: [tuned, probe]}}, config: {{attention_images: 0}}}}
"""


def test_each_of_them_is_tuned_and_probed(tmp_path: Path) -> None:
    shards(tmp_path, "photos", counts={"train": 18, "test": 9})
    for name, family in PEOPLE_HAVE.items():
        FAMILIES[family](tmp_path / "theirs" / name)
    path, models = tmp_path / "families.yaml", ", ".join(PEOPLE_HAVE)
    path.write_text(SPEC.format(store=f"file://{tmp_path}/store", folder=tmp_path / "theirs", models=models))
    run(load(path, env={}), (), tiny_ways(timing=QUICK))
    root = tmp_path / "store" / "families"
    for name in PEOPLE_HAVE:
        scores = [
            json.loads(next((root / node / name).rglob("score.json")).read_bytes()) for node in ("tuned", "probe")
        ]
        assert all(0 <= score["value"] <= 1 and score["num_test"] == 9 for score in scores), name
        settings = read_settings(next((root / "tuned" / name).rglob("native/model.json")))
        imported = read_settings(next((root / "weights" / name).rglob("native/model.json")))
        assert settings.image_px == 48 and settings.classes == 3, name
        assert settings.later_parts == imported.later_parts, name
