"""A real training with two ranks killed beside its simulation, whose seconds come from an undisturbed run alone.

`PYTHONPATH=.:tests/faults:tests/end_to_end python -m tests.benchmarks.two_kills`: some ten minutes.
"""

import json
import os
import signal
import tempfile
import time
from datetime import datetime
from pathlib import Path

from driving import finish, start, vitpipe
from trainings import Training

from vitpipe.infra.ray.gang_size import Size
from vitpipe.infra.simulation.policies import SavesEach
from vitpipe.infra.simulation.road import Arrival, Road, Trip
from vitpipe.infra.simulation.training_model import TrainingModel

STEPS, EVERY = 300, 50
KILLS = ((1, 120), (0, 215))
"""Which rank, once which step is reached."""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        calm = Training(Path(folder, "calm"), steps=STEPS, every=EVERY, layers=8, micro_batch=2, workers="2", keep=9)
        calm.folder.mkdir()
        calm.again()
        shards = f"file://{calm.run}/glyphs"
        rough = Training(
            Path(folder, "rough"), shards, steps=STEPS, every=EVERY, layers=8, micro_batch=2, workers="2", keep=99
        )
        rough.folder.mkdir()
        killed = kill(rough)
        model, tail_s = measured(calm)
        begun, ended = span(rough)
        simulated = simulate(model, [at - begun for at in killed])
        really, reckoned = ended - begun, simulated.seconds + tail_s
        print(f"undisturbed: start {model.start_s:.1f} s, step {model.step_seconds(2):.3f} s, end {tail_s:.1f} s")
        times = ", ".join(f"{at - begun:.1f}" for at in killed)
        print(f"killed after {times} s: really {really:.1f} s,", end=" ")
        print(f"simulated {reckoned:.1f} s, {reckoned / really:.3f} of it; {simulated.steps_lost} steps made again")


def kill(training: Training) -> list[float]:
    """Run it, with ranks killed on its way; when they were."""
    process, left, killed = start("run", training.spec, cwd=training.folder), list(KILLS), list[float]()
    while process.poll() is None:
        now = training.now()
        if left and now.get("ranks") and now.get("step", 0) >= left[0][1]:
            rank, _ = left.pop(0)
            os.kill(training.pid(rank), signal.SIGKILL)
            killed.append(time.time())
        time.sleep(0.2)
    finish(process)
    return killed


def measured(training: Training) -> tuple[TrainingModel, float]:
    """What starts, steps and the end of an undisturbed run took."""
    path = training.run / "backbone" / training._at("metrics.jsonl")
    seconds = [json.loads(line)["seconds"] for line in path.read_text().splitlines()]
    commits = [at for at, kind in events(training) if kind == "checkpoint_committed"]
    begun, ended = span(training)
    step_s = sum(seconds) / len(seconds)
    first_s = commits[0] - begun - sum(seconds[:EVERY])
    model = TrainingModel(STEPS, lambda ranks: step_s, SavesEach(EVERY, STEPS), Size(2, 2, 1, 0), start_s=first_s)
    return model, ended - commits[-1]


def simulate(model: TrainingModel, kills: list[float]) -> Arrival:
    road = Road(Trip({"here": {"CPU": 2.0}}, model))
    for at in kills:
        road.agenda.after(at, lambda: road.cluster.strike("here", "crash"))
    return road.travel()


def span(training: Training) -> tuple[float, float]:
    found = events(training)
    return next(at for at, kind in found if kind == "started"), next(at for at, kind in found if kind == "committed")


def events(training: Training) -> list[tuple[float, str]]:
    lines = vitpipe("events", training.run, "--json", cwd=training.folder).stdout.splitlines()
    found = [event for event in map(json.loads, lines) if event.get("node") == "backbone"]
    return [(datetime.fromisoformat(event["time"]).timestamp(), event["kind"]) for event in found]


if __name__ == "__main__":
    main()
