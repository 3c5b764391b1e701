"""What a plan says binds a pretraining, in cases built so that one thing must, and what it says would help."""

import pytest

from vitpipe.pipeline.cli.plan_page import binding
from vitpipe.pipeline.plan.given_machines import gpu_kinds
from vitpipe.stages.costs.machines import ClusterFacts, GpuKind
from vitpipe.stages.estimates import Costs, Estimate, Known
from vitpipe.stages.pretrain.config import PretrainConfig, PretrainResources
from vitpipe.stages.pretrain.estimate import estimate

I21K = Estimate(splits={"train": 14_197_122}, num_classes=21_843, image_bytes=110_000)
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
    found = planned("B/16", resources={"cache_bytes": 20_000_000_000, "cpus_per_worker": 6})
    assert found.costs is not None and found.costs.binds == "images"
    assert found.costs.image_milliseconds["request"] > found.costs.image_milliseconds["decode"]
    assert any("one by one from the store" in note and "20 GB" in note for note in found.notes)
    roomy = planned("B/16", resources={"cpus_per_worker": 6})
    assert roomy.costs is not None and roomy.costs.binds != "images" and "request" not in str(roomy.notes)


def test_large_pngs_bind_and_how_many_cores_would_do() -> None:
    pngs = Estimate(splits={"train": 1_000_000}, num_classes=1000, image_bytes=2_000_000, image_format="png")
    found = costs(data=pngs, cluster={"store_gbit_per_s": 400})
    assert found.binds == "images" and found.image_milliseconds["decode"] > 10
    assert costs(data=pngs.model_copy(update={"image_format": "jpeg", "image_bytes": 110_000.0})).binds == "compute"


def test_randaugment_on_one_core_binds() -> None:
    varied = {"randaugment": {"kind": "torchvision", "layers": 2}, "mixup": 0.2}
    found = costs("B/16", resources={"cpus_per_worker": 1}, augment=varied)
    assert found.binds == "images" and found.images_per_s < 0.2 * found.compute_images_per_s
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
    eight = {"workers": 8, "micro_batch": 64}
    found = costs("Ti/16", resources=eight | {"cpus_per_worker": 4})
    cores = found.needed["cores_per_worker"]
    assert 37 < cores < 56 and found.needed["cores_per_machine"] == 8 * cores
    said = binding(found)
    assert "would do" not in said and f"machines of {8 * cores:.0f}; one of these holds 2 such workers" in said
    roomy = {"cores_per_machine": int(8 * cores)}
    assert costs("Ti/16", cluster=roomy, resources=eight | {"cpus_per_worker": int(cores)}).binds == "compute"
    followed = costs("B/16", resources={"cpus_per_worker": 1})
    cores = int(followed.needed["cores_per_worker"])
    assert cores <= 14 and f"{cores} cores a worker (resources.cpus_per_worker: {cores}) would do" in binding(followed)


def test_fp32_is_reckoned_by_its_own_peak_or_not_at_all() -> None:
    """Torch leaves TF32 off, and no training turns it on: 67 of an H100's 989 TFLOP/s."""
    half, single = (costs(precision=precision).step_seconds["compute"] for precision in ("bf16", "fp32"))
    assert single / half == pytest.approx(989 / 67)
    unknown = gpu_kinds()["H100"].model_copy(update={"peak_flops_fp32": None})
    found = planned(gpu=unknown, precision="fp32")
    assert found.hours is None and found.costs is None and found.flops
    assert any("no fp32 peak of this GPU is known" in note and "peak_flops_fp32" in note for note in found.notes)
    assert planned(gpu=unknown).hours == planned().hours
