"""What a plan says binds a pretraining, in cases built so that one thing must, and what it says would help."""

import re

import numpy as np
import pytest

from vitpipe.pipeline.cli.plan_page import binding
from vitpipe.pipeline.plan.given_machines import gpu_kinds
from vitpipe.stages.costs.machines import ClusterFacts, GpuKind
from vitpipe.stages.estimates import Costs, Estimate, Known
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.pretrain.config import PretrainConfig, PretrainResources
from vitpipe.stages.pretrain.estimate import estimate
from vitpipe.stages.vit.flops import num_parameters, recomputed_flops_per_image, train_flops_per_image

I21K = Estimate(splits={"train": 14_197_122}, num_classes=21_843, image_bytes=110_000)
LARGE_PNGS = Estimate(splits={"train": 1_000_000}, num_classes=1000, image_bytes=2_000_000, image_formats={"png": 1.0})
PLENTY = {"workers": 64, "gpus_per_worker": 1, "cpus_per_worker": 14}


def planned(
    variant: str = "L/16",
    cluster: dict[str, object] | None = None,
    resources: dict[str, object] | None = None,
    data: Estimate = I21K,
    gpu: GpuKind | None = None,
    **config: object,
) -> Estimate:
    fields = {"model": {"variant": variant, "image_px": 224}, "batch_images": 4096, "total": "30 epochs", **config}
    known = Known(gpus=64, gpu=gpu or gpu_kinds()["H100"], cluster=ClusterFacts.model_validate(cluster or {}))
    given = PretrainResources.model_validate(PLENTY | (resources or {}))
    return estimate(PretrainConfig.model_validate(fields), given, {"shards": (data,)}, known)


def costs(*args: object, **changes: object) -> Costs:
    found = planned(*args, **changes).costs  # type: ignore[arg-type]
    assert found is not None
    return found


def test_with_plenty_of_all_the_model_binds() -> None:
    for variant in ("L/16", "H/14"):
        found = costs(variant)
        assert found.binds == "compute" and not found.needed
        assert found.images_per_s > 0.85 * found.compute_images_per_s


def test_a_slow_store_binds_and_how_fast_it_would_have_to_be() -> None:
    found = costs(cluster={"store_gbit_per_s": 0.4, "disk_bytes": 250e9})
    assert found.binds == "store" and found.images_per_s < 0.8 * found.compute_images_per_s
    enough = costs(cluster={"store_gbit_per_s": 1.01 * found.needed["store_gbit_per_s"], "disk_bytes": 250e9})
    assert enough.binds == "compute"


def test_a_disk_without_room_for_its_windows_binds_by_reads_of_single_images() -> None:
    """Two windows of 65,536 images of each of a machine's 16 streams are 231 GB; with room for a tenth, nine in ten
    images cost a request each."""
    found = planned("B/16", resources={"cache_bytes": 20_000_000_000, "cpus_per_worker": 4})
    assert found.costs is not None and found.costs.binds == "images"
    assert found.costs.image_milliseconds["request"] > 0.5 * found.costs.image_milliseconds["decode"]
    assert any("one by one from the store" in note and "20 GB" in note for note in found.notes)
    roomy = planned("B/16", resources={"cpus_per_worker": 4})
    assert roomy.costs is not None and roomy.costs.binds != "images" and "request" not in str(roomy.notes)


def test_large_pngs_bind_and_how_many_cores_would_do() -> None:
    found = costs("B/16", data=LARGE_PNGS, cluster={"store_gbit_per_s": 400})
    assert found.binds == "images" and found.image_milliseconds["decode"] > 8
    small = LARGE_PNGS.model_copy(update={"image_formats": {"jpeg": 1.0}, "image_bytes": 110_000.0})
    assert costs("B/16", data=small).binds == "compute"


def test_randaugment_on_one_core_binds() -> None:
    varied = {"randaugment": {"kind": "torchvision", "layers": 2}, "mixup": 0.2}
    found = costs("B/16", resources={"cpus_per_worker": 1}, augment=varied)
    assert found.binds == "images" and found.images_per_s < 0.3 * found.compute_images_per_s
    enough = int(found.needed["cores_per_worker"])
    assert costs("B/16", resources={"cpus_per_worker": enough}, augment=varied).binds != "images"
    assert costs("B/16", resources={"cpus_per_worker": enough // 2}, augment=varied).binds == "images"


def test_one_card_a_machine_binds_and_how_fast_it_would_have_to_be() -> None:
    found = costs(cluster={"network_gbit_per_s": 100}, reduce_dtype="bf16")
    assert found.binds == "network" and 2 < found.compute_images_per_s / found.images_per_s < 3
    whole = costs("H/14", cluster={"network_gbit_per_s": 100})
    assert whole.binds == "network" and 2 < whole.compute_images_per_s / whole.images_per_s < 3, "sums in fp32"
    enough = {"network_gbit_per_s": found.needed["network_gbit_per_s"]}
    assert costs(cluster=enough, reduce_dtype="bf16").binds == "compute"


def test_beyond_the_knee_twice_the_workers_help_little() -> None:
    found = costs(cluster={"network_gbit_per_s": 400})
    knee = found.knee_workers
    assert knee is not None and 8 <= knee < 4096
    at = {n: costs(cluster={"network_gbit_per_s": 400}, resources={"workers": n, "micro_batch": 4096 // n}).images_per_s
          for n in (knee // 2, knee, 2 * knee)}  # fmt: skip
    assert at[knee] >= 1.5 * at[knee // 2] and at[2 * knee] < 1.5 * at[knee]


def test_checkpoints_far_from_the_best_interval_are_said() -> None:
    often = {"checkpoint_every": "1 steps"}
    (said,) = (note for note in planned(resources=often).notes if note.startswith("checkpoint_every"))
    best = int(said.split("about ")[1].split()[0])
    assert not planned(resources={"checkpoint_every": f"{best} steps"}).notes
    less, more = planned(resources={"checkpoint_every": f"{best} steps"}).hours, planned(resources=often).hours
    assert less is not None and more is not None and less < more


@pytest.mark.parametrize(
    ("workers", "cores", "machines"), [(8, 14, 1), (9, 14, 2), (64, 14, 8), (8, 44, 4), (8, 112, 8)]
)
def test_machines_follow_from_their_gpus_and_cores(workers: int, cores: int, machines: int) -> None:
    given = {"workers": workers, "micro_batch": 64, "cpus_per_worker": cores}
    assert costs(resources=given).machines == machines


def test_cores_that_no_machine_has_are_no_advice() -> None:
    eight = {"workers": 8, "micro_batch": 512}
    found = costs("Ti/16", resources=eight | {"cpus_per_worker": 4})
    cores = found.needed["cores_per_worker"]
    assert 37 < cores < 56 and found.needed["cores_per_machine"] == 8 * cores
    said = binding(found)
    assert "would do" not in said and f"machines of {8 * cores:.0f}; one of these holds 2 such workers" in said
    roomy = {"cores_per_machine": int(8 * cores), "store_gbit_per_s": 400}
    assert costs("Ti/16", cluster=roomy, resources=eight | {"cpus_per_worker": int(cores)}).binds == "compute"
    followed = costs("B/16", resources={"cpus_per_worker": 1})
    cores = int(followed.needed["cores_per_worker"])
    assert cores <= 14 and f"{cores} cores a worker (resources.cpus_per_worker: {cores}) would do" in binding(followed)


@pytest.mark.parametrize(("cores", "ranks"), [(14, 64), (20, 40), (56, 16), (100, 8)])
def test_an_elastic_gang_has_as_many_ranks_as_cores_and_gpus_hold(cores: int, ranks: int) -> None:
    """Eight machines of eight GPUs and 112 cores: a run would start so many, and wait for no more."""
    found = costs(resources={"workers": [8, 64], "micro_batch": 32, "cpus_per_worker": cores})
    assert (found.workers, found.phases[0].ranks) == (ranks, ranks)


def test_workers_that_the_only_machine_does_not_hold_are_told() -> None:
    fields = {"model": {"variant": "B/16", "image_px": 224}, "batch_images": 64, "total": "10 steps"}
    fields |= {"schedule": {"warmup": "1 steps"}}

    def said(host_bytes: float, workers: int) -> list[str]:
        known = Known(cores=2, is_one_machine=True, host_bytes=host_bytes)
        resources = PretrainResources(workers=workers, micro_batch=1)
        found = estimate(PretrainConfig.model_validate(fields), resources, {"shards": (I21K,)}, known)
        return [note for note in found.notes if "this machine has" in note]

    (one,) = said(1e9, 1)
    assert re.search(r"its workers need [0-9.]+ GB together, and this machine has 1: fewer workers or", one)
    needed = 1e9 * float(re.findall(r"need ([0-9.]+) GB", one)[0])
    assert not said(1.1 * needed, 1) and said(1.1 * needed, 2) and not said(0.0, 2)


def test_the_first_epoch_waits_for_a_store_that_later_ones_do_not_need() -> None:
    """1.56 TB at 5 Gbit/s are 2,500 s for the only machine, however many epochs then read from its disk."""
    slow, one = {"store_gbit_per_s": 5}, {"workers": 8, "micro_batch": 64}
    for epochs in (10, 90):
        fast = planned("B/16", cluster={"store_gbit_per_s": 400}, resources=one, total=f"{epochs} epochs")
        late = planned("B/16", cluster=slow, resources=one, total=f"{epochs} epochs")
        assert fast.hours and late.hours and fast.costs and late.costs
        first_epoch = fast.hours / epochs
        assert late.hours - fast.hours == pytest.approx(14_197_122 * 110_000 * 8 / 5e9 / 3600 - first_epoch, rel=0.02)
        assert late.costs.binds == ("store" if epochs == 10 else "compute"), "less than a quarter of 90 epochs"
        assert late.costs.images_per_s < fast.costs.images_per_s
    small_disk = planned("B/16", cluster=slow | {"disk_bytes": 250e9}, resources=one, total="10 epochs")
    assert small_disk.hours and late.hours and small_disk.hours > 2 * 10 / 90 * late.hours, "each epoch fetches anew"


def test_measuring_a_training_takes_time_too() -> None:
    """Forward passes of a third of a step's FLOPs over all held-out images, on all ranks, as often as is asked."""
    held = I21K.model_copy(update={"splits": (I21K.splits or {}) | {"val": 1_420_000}})
    plain, often = planned(data=held), planned(data=held, evaluate={"every": "10 steps"})
    assert plain.costs and often.costs and plain.hours and often.hours and plain.steps
    assert often.costs.measurements == -(-plain.steps // 10) and plain.costs.measurements == 0
    took = (often.hours - plain.hours) * 3600
    assert took == pytest.approx(often.costs.measuring_seconds)
    step, share = plain.costs.step_seconds["compute"], 1_420_000 / 4096
    assert took == pytest.approx(often.costs.measurements * share * step / 3, rel=0.02)
    assert any("config.evaluate" in note and "% of its time" in note for note in often.notes)
    seldom = planned(data=held, evaluate={"every": "10 epochs"})
    assert seldom.costs and seldom.costs.measurements == 4 and not any("evaluate" in note for note in seldom.notes)
    assert seldom.flops == plain.flops == often.flops, "what is trained"


def test_fp32_is_reckoned_by_its_own_peak_or_not_at_all() -> None:
    """Torch leaves TF32 off, and no training turns it on: 67 of an H100's 989 TFLOP/s."""
    half, single = (costs(precision=precision).step_seconds["compute"] for precision in ("bf16", "fp32"))
    assert single / half == pytest.approx(989 / 67)
    unknown = gpu_kinds()["H100"].model_copy(update={"peak_flops_fp32": None})
    found = planned(gpu=unknown, precision="fp32")
    assert found.hours is None and found.costs is None and found.flops
    assert any("no fp32 peak of this GPU is known" in note and "peak_flops_fp32" in note for note in found.notes)
    assert planned(gpu=unknown).hours == planned().hours


def test_what_is_recomputed_takes_time_and_is_no_more_flops() -> None:
    """Of L/16 without dropout 0.225 of its FLOPs: the blocks' forward passes but for the MLP's last product."""
    model = ModelSettings(variant="L/16", image_px=224, classes=21_843)
    again = recomputed_flops_per_image(model) / train_flops_per_image(model)
    plain, recomputed = (planned(resources={"activation_checkpointing": how}) for how in ("none", "blocks"))
    assert plain.costs is not None and recomputed.costs is not None and plain.hours and recomputed.hours
    assert plain.flops == recomputed.flops
    steps = plain.costs.step_seconds, recomputed.costs.step_seconds
    assert steps[0]["recompute"] == 0 and steps[1]["recompute"] == pytest.approx(again * steps[0]["compute"])
    assert steps[1]["compute"] == pytest.approx((1 + again) * steps[0]["compute"])
    assert recomputed.hours > 1.15 * plain.hours, "collectives take as long as they did"
    share = f"{again / (1 + again):.0%} of a step computes blocks again (activation_checkpointing: blocks)"
    assert share in binding(recomputed.costs) and "again" not in binding(plain.costs)


def test_what_is_recomputed_is_also_asked_for_again() -> None:
    """Where launches bind: 13 of 51 operations of a block, and none of the 45 of a pass and 32 of a step."""
    plain, again = (
        costs("Ti/16", resources={"micro_batch": 1, "activation_checkpointing": how}) for how in ("none", "blocks")
    )
    assert (plain.binds, again.binds, plain.step_seconds["recompute"]) == ("launches", "launches", 0)
    assert again.step_seconds["recompute"] == pytest.approx(64 * 12 * 13 * 5e-6)
    assert again.step_seconds["compute"] - plain.step_seconds["compute"] == pytest.approx(64 * 12 * 13 * 5e-6)
    assert "24% of a step computes blocks again" in binding(again)


def test_no_step_is_shorter_than_its_launches() -> None:
    """Ti/16 on 64 GPUs, one image a pass: 64 passes of 38 operations a block and 45, and 32 a step, of 5 us each."""
    found = costs("Ti/16", resources={"micro_batch": 1})
    assert found.binds == "launches"
    assert found.step_seconds["launches"] == pytest.approx((64 * (12 * 38 + 45) + 32) * 5e-6)
    assert found.step_seconds["step"] >= found.step_seconds["launches"] > 10 * found.step_seconds["images"]
    assert found.compute_images_per_s > 20 * found.images_per_s and "micro_batch" not in found.needed, "none is enough"
    compiled = costs("Ti/16", resources={"micro_batch": 1, "compile": True})
    assert compiled.step_seconds["launches"] == pytest.approx((64 * (12 * 24 + 45) + 32) * 5e-6)
    slow = gpu_kinds()["H100"].model_copy(update={"launch_us": 10.0})
    assert costs("Ti/16", gpu=slow, resources={"micro_batch": 1}).step_seconds["launches"] == pytest.approx(
        2 * found.step_seconds["launches"]
    )
    assert costs("L/16").step_seconds["compute"] > 10 * costs("L/16").step_seconds["launches"], "they pass meanwhile"


def test_a_micro_batch_that_is_large_enough_is_said_and_does() -> None:
    """B/16, 64 images a GPU: 17 ms; passes of 501 operations, of 5 us, so no more than 6 of them."""
    found = costs("B/16", resources={"micro_batch": 4})
    assert found.binds == "launches" and found.needed == {"micro_batch": 16.0}
    assert "micro_batch 16 would do" in binding(found)
    assert costs("B/16", resources={"micro_batch": 16}).binds == "compute"
    assert costs("B/16", resources={"micro_batch": 8}).binds == "launches"


def test_the_network_that_is_said_is_the_least_that_does() -> None:
    """ZeRO 3 on one card of 100 Gbit/s; by doublings it was 1,600."""
    slow = costs(cluster={"network_gbit_per_s": 100}, resources={"zero": 3})
    enough = slow.needed["network_gbit_per_s"]
    for part, binds in ((1.0, "compute"), (0.85, "network")):
        faster = {"network_gbit_per_s": part * enough}
        assert costs(cluster=faster, resources={"zero": 3}).binds == binds
    assert enough == float(f"{enough:.2g}") and f"{enough:,.0f} Gbit/s between machines would do" in binding(slow)


def test_where_links_inside_a_machine_bind_no_cores_are_advised() -> None:
    """ZeRO 3 with an image a pass sends all weights twice for each: NVLink holds it up, and more cores do nothing."""
    gpu = gpu_kinds()["H100"].model_copy(update={"launch_us": 0.01})
    found = costs("L/16", gpu=gpu, resources={"workers": 8, "micro_batch": 1, "zero": 3, "cpus_per_worker": 2})
    assert found.binds == "network" and not found.needed and "would do" not in binding(found)
    starved = costs("L/16", gpu=gpu, resources={"workers": 8, "micro_batch": 1, "zero": 3, "cpus_per_worker": 1},
                    data=LARGE_PNGS)  # fmt: skip
    assert starved.binds == "images", "then as many as the links let it use"
    cores = starved.needed["cores_per_worker"] if starved.needed else 0
    step = starved.step_seconds
    assert cores == np.ceil(step["images"] / (step["compute"] + step["network"]))


def test_a_faster_store_is_advised_only_as_far_as_images_let_it() -> None:
    slow = {"store_gbit_per_s": 0.02, "disk_bytes": 250e9}
    found = costs("Ti/16", cluster=slow, resources={"micro_batch": 64, "cpus_per_worker": 2})
    assert found.binds == "store" and "cores_per_machine" in found.needed
    said = binding(found)
    assert "would do" not in said and "Gbit/s from the store a machine images would bind; images would need" in said
    already = costs("Ti/16", resources={"micro_batch": 1, "workers": 8, "cpus_per_worker": 1}, data=LARGE_PNGS)
    assert already.binds == "images" and "images would bind" not in binding(already)
    faster = slow | {"store_gbit_per_s": 1.01 * found.needed["store_gbit_per_s"]}
    assert costs("Ti/16", cluster=faster, resources={"micro_batch": 64, "cpus_per_worker": 14}).binds == "images"


def test_the_knee_is_not_where_micro_batches_do_not_divide() -> None:
    """96 micro-batches: 64 workers are no quicker than 48, and 96 are 1.8 times as quick."""
    fast = {"store_gbit_per_s": 400}
    at = {n: costs(cluster=fast, batch_images=4608, resources={"workers": n, "micro_batch": 48}) for n in (48, 64, 96)}
    assert at[64].images_per_s < at[48].images_per_s < at[96].images_per_s / 1.5
    assert at[48].knee_workers == at[64].knee_workers and (at[64].knee_workers or 0) >= 96
    notes = planned(batch_images=4608, resources={"workers": 64, "micro_batch": 48}).notes
    assert any("32 of 128 passes are padding; 48 or 96 workers have none" in note for note in notes)


def test_a_failure_budget_that_will_be_spent_is_told() -> None:
    often = planned(cluster={"gpu_hours_between_failures": 50})
    (said,) = (note for note in often.notes if "failures are expected" in note)
    enough = int(said.split("typed again: ")[1].split()[0])
    assert "more than max_failures 3 end the command" in said and enough > 3
    for given, silent in ((enough, True), (enough // 3, False)):
        notes = planned(cluster={"gpu_hours_between_failures": 50}, resources={"max_failures": given}).notes
        assert silent is not any("failures are expected" in note for note in notes), given
    assert not any("failures are expected" in note for note in planned().notes)


def test_a_training_that_never_ends_is_told() -> None:
    frail = {"gpu_hours_between_failures": 5, "network_gbit_per_s": 10, "gpus_per_machine": 4, "store_gbit_per_s": 0.5}
    found = planned(cluster=frail)
    (said,) = (note for note in found.notes if "never end" in note)
    assert "a failure is expected every 281 s" in said and found.hours is not None and found.hours > 5000
    best = int(said.split("checkpoint_every ")[1].split()[0])
    step_s = found.costs.step_seconds["step"] if found.costs else 0.0
    state_s = 12 * num_parameters(ModelSettings(variant="L/16", image_px=224, classes=21_843)) / 16 / (0.5e9 / 8)
    assert state_s <= best * step_s < state_s + 2 * step_s, "as long as a machine's part of the state takes"
    mended = planned(cluster=frail, resources={"checkpoint_every": f"{best} steps"})
    assert not any("never end" in note for note in mended.notes) and mended.hours and mended.hours < 1000
