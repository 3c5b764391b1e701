"""What a checkpoint costs a training: how long it stands, what steps beside the writing lose, when it is committed."""

import time

import torch

from vitpipe.infra.work import Rank
from vitpipe.stages.gpu_check.findings import Findings, Way
from vitpipe.stages.gpu_check.machine import synchronise
from vitpipe.stages.gpu_check.ranks import doors, one_rank
from vitpipe.stages.gpu_check.training import B16, L16, SHRUNK, Setting, build
from vitpipe.stages.training.checkpoint.checkpoints import Checkpoints
from vitpipe.stages.training.checkpoint.committed_steps import Keep

SAVES = {False: 3, True: 1}


def run(way: Way, findings: Findings) -> None:
    """Save a few times while a training goes on."""
    settings = [Setting(SHRUNK, 4, "fp32")] if way.shrunk else [Setting(B16, 128), Setting(L16, 64)]
    with one_rank(way.device) as rank:
        for setting in settings:
            if way.shrunk or findings.left() > 12:
                saving(way, findings, setting, rank)
            else:
                findings.left_out(f"checkpoints of {setting.model.name}")


def saving(way: Way, findings: Findings, setting: Setting, rank: Rank) -> None:
    """Add a row: the medians of the saves after the first, whose buffers are new."""
    trained = build(setting, rank, way.scratch)
    task = doors(way.scratch, f"saves-{setting.model.name.replace('/', '-').lower()}")
    task.out.begin()
    checkpoints = Checkpoints(trained.engine, task.out, task.scratch, task.events, rank, Keep(1, None))
    trained.steps(1 if way.shrunk else 3)
    alone = trained.seconds(1 if way.shrunk else 5)
    stalls, beside, size, commits = [], [], 0, []
    for _ in range(SAVES[way.shrunk]):
        synchronise(way)
        begun = time.perf_counter()
        checkpoints.save(trained.done, trained.done * setting.micro_batch, {})
        stalls.append(time.perf_counter() - begun)
        beside.append(trained.seconds(1 if way.shrunk else 3))
        checkpoints.settle()
        for saved in checkpoints.news():
            commits.append(saved.commit_seconds)
            size = sum(file.bytes for file in saved.manifest.files)
    checkpoints.close()
    findings.row(
        {
            "training": f"{setting.model.name}, ZeRO {setting.zero}, {setting.precision}",
            "GB": size / 1e9,
            "first stall s": stalls[0],
            "stall s": _middle(stalls[1:] or stalls),
            "one pinned copy s": size / _copy_speed(way, size),
            "step s": alone,
            "step beside it s": _middle(beside),
            "committed after s": _middle(commits),
        }
    )


def _middle(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def _copy_speed(way: Way, size: int) -> float:
    """Bytes a second of one copy of so many into memory that is reused."""
    source = torch.zeros(min(max(size, 1), 1 << 30), dtype=torch.uint8, device=way.device)
    target = torch.empty(source.shape, dtype=torch.uint8, pin_memory=way.cuda)
    target.copy_(source)
    synchronise(way)
    begun = time.perf_counter()
    target.copy_(source)
    synchronise(way)
    return source.numel() / (time.perf_counter() - begun)
