"""A plan as a person reads it: the nodes, what binds each and what it would take, and why. Knows no store."""

from collections.abc import Iterator, Mapping
from typing import Any

from vitpipe.pipeline.cli import display
from vitpipe.pipeline.cli.terminal import folded, is_terminal, say
from vitpipe.pipeline.plan.counted import counted
from vitpipe.pipeline.plan.planned import Plan, Planned
from vitpipe.pipeline.plan.prices import Machine
from vitpipe.pipeline.plan.schedule import Schedule
from vitpipe.stages.estimates import Costs

_OF_CORES = ("cores_per_worker", "cores_per_machine", "workers_per_machine", "cores_there")
SHORT_S = 1e-5
"""Below it a time is not worth its digits."""
_TERMS = ("compute", "recompute", "launches", "network", "traffic", "images", "store", "step")


def show_plan(plan: Plan, uri: str, why: bool, stands_still: str) -> None:
    """Print the nodes, what binds them, and why a run would start nothing; with `why` every term."""
    if is_terminal():
        display.show(display.plan_table(plan, uri))
    else:
        for line in display.plan_lines(plan):
            say(line)
    for line in (*binding_lines(plan), *(why_lines(plan) if why else ())):
        say(folded(line))
    if stands_still:
        display.show(display.loud(stands_still)) if is_terminal() else say(folded(stands_still))


def show_sum(total: Mapping[str, Any], machine: Machine, schedule: Schedule) -> None:
    """Print how long all of it takes, and what it costs by which assumptions: GPUs as held, and all the time."""
    words = _schedule_words(schedule, machine)
    if words and (total["flops"] or not schedule.unknown):  # else of the rest, which says little
        say(folded(words + _held_words(total, schedule.held(machine))))
    if total["flops"]:
        say(folded(f"{display.total_line(total, machine)}; {machine.assumption()}"))


def _held_words(total: Mapping[str, Any], held: Mapping[str, float | None]) -> str:
    """Say what GPUs cost that are held all the time, where some wait: `; held all the time: 9.03k GPU-hours`."""
    whole, hours = held["held_gpu_hours"] or 0.0, display.short(held["held_gpu_hours"])
    if whole <= total["gpu_hours"] or hours == display.short(total["gpu_hours"]):
        return ""
    price = "" if held["held_price"] is None else f", price {display.short(held['held_price'])}"
    return f"; held all the time: {hours} GPU-hours{price}"


def _schedule_words(schedule: Schedule, machine: Machine) -> str:
    """Say how long the whole graph takes: `the whole graph: 5:34 on 2 CPU cores, as the queue would run it`."""
    of = counted(machine.num_gpus, "GPU") if machine.num_gpus else counted(machine.cores, "CPU core")
    if not schedule.seconds:
        return ""
    missing = f"; not counting {', '.join(schedule.unknown)}" if schedule.unknown else ""
    return f"the whole graph: {display.duration(schedule.seconds)} on {of}, as the queue would run it{missing}"


def binding_lines(plan: Plan) -> Iterator[str]:
    """Write a line for each pretraining still to be run, and for tasks that their model does not bind."""
    for one in plan.nodes.values():
        costs = one.estimate.costs
        mendable = costs is not None and costs.binds not in ("compute", "start")
        if costs is not None and one.action != "reuse" and (one.stage == "pretrain" or mendable):
            yield f"{one.node}: {binding(costs, _unit(one))}"


def binding(costs: Costs, unit: str = "worker") -> str:
    """Say what binds: `bound by images: 325 of 14,400 images/s; 12 cores a worker (...) would do`."""
    words = f"bound by {costs.binds}"
    if costs.binds == "compute":
        words += f": {costs.images_per_s:,.0f} images/s"
    else:
        words += f": {costs.images_per_s:,.0f} of {costs.compute_images_per_s:,.0f} images/s"
    if costs.binds == "network":
        ratio = costs.compute_images_per_s / costs.images_per_s
        words += f", {ratio:.1f} times as long as compute alone"
    if again := costs.step_seconds.get("recompute"):
        share = again / costs.step_seconds["compute"]
        words += f"; {share:.0%} of a step computes blocks again (activation_checkpointing: blocks)"
    needed = _needed(costs, unit)
    if "cores_per_machine" in costs.needed:
        words += f"; with {needed} images would bind" if needed and costs.binds != "images" else ""
        words += f"; {_too_many_cores(costs, unit)}"
    elif needed:
        words += f"; {needed} would do"
    if costs.knee_workers is not None and costs.workers > costs.knee_workers:
        words += f"; beyond {counted(costs.knee_workers, unit)} twice as many are less than 1.5 times as fast"
    return words


def _unit(one: Planned) -> str:
    """What a node consists of."""
    return "worker" if one.stage == "pretrain" else "task"


def _too_many_cores(costs: Costs, unit: str) -> str:
    """What no machine can do is no advice: it says how far they are from it."""
    each, whole, room, there = (costs.needed[name] for name in _OF_CORES)
    found = f"images would need {counted(each, 'core')} a {unit}, and machines of {whole:.0f}"
    such = counted(room, f"such {unit}")
    found += f"; one of these holds {such}, its other GPUs would idle" if room >= 1 else "; these hold none of so many"
    if there > costs.cores_per_worker:
        found += f"; {counted(there, 'core')} a {unit} (resources.cpus_per_{unit}: {there:.0f}) are what it has for all"
    return found


def _needed(costs: Costs, unit: str) -> str:
    words = {
        "cores_per_worker": lambda many: f"{counted(many, 'core')} a {unit} (resources.cpus_per_{unit}: {many:.0f})",
        "micro_batch": lambda many: f"micro_batch {many:.0f}",
        "store_gbit_per_s": lambda many: f"{_rate(many)} Gbit/s from the store a machine",
        "network_gbit_per_s": lambda many: f"{_rate(many)} Gbit/s between machines",
    }
    if "cores_per_machine" in costs.needed:
        del words["cores_per_worker"]
    return " and ".join(words[name](many) for name, many in costs.needed.items() if name in words)


def _rate(many: float) -> str:
    """Write three digits and no power: `0.42`, `87.5`, `1,600`."""
    return f"{many:,.0f}" if many >= 1000 else f"{many:.3g}"


def why_lines(plan: Plan) -> Iterator[str]:
    """Write every term of each node that trains: milliseconds of a step and of an image, checkpoints, failures."""
    for one in plan.nodes.values():
        if one.estimate.costs is not None and one.action != "reuse":
            yield from (f"{one.node}: {words}" for words in _why(one, one.estimate.costs))


def _why(one: Planned, costs: Costs) -> Iterator[str]:
    shown = {name for name, took in costs.step_seconds.items() if took or name not in ("recompute", "launches")}
    steps = ", ".join(f"{name} {_took(costs.step_seconds[name])}" for name in _TERMS if name in shown)
    yield f"{'a step' if 'step' in costs.step_seconds else 'a task'}: {steps}"
    image = ", ".join(f"{name} {took:.3g} ms" for name, took in costs.image_milliseconds.items() if took)
    if costs.memory_terms:
        memory = ", ".join(
            f"{name} {display.short(bytes_, 'B')}" for name, bytes_ in costs.memory_terms.items() if bytes_
        )
        yield f"memory: {memory}"
    unit, at_once = _unit(one), "" if one.stage == "pretrain" else " at once"
    of = f"{counted(costs.cores_per_worker, 'core')} a {unit}, {counted(costs.workers, unit)}{at_once}"
    yield f"an image on one core: {image}; {of}"
    if costs.checkpoint_steps is not None:
        told = f"every {counted(costs.checkpoint_steps, 'step')}, {_took(costs.stalls_seconds)} in all"
        lost = f"failures cost {_took(costs.failures_seconds)}"
        yield f"checkpoints {told}; {lost}; about {counted(costs.best_checkpoint_steps or 1, 'step')} would lose least"
        read, held = display.short(costs.store_bytes, "B"), display.short(costs.window_bytes, "B")
        yield f"a machine reads {read} and holds {held} of windows"
    if costs.measurements:
        yield f"measured {counted(costs.measurements, 'time')}, {_took(costs.measuring_seconds)} in all"
    if costs.knee_workers is not None:
        yield f"more than {counted(costs.knee_workers, unit)} are less than 1.5 times as fast when doubled"


def _took(seconds: float) -> str:
    """Write a time in the unit that a person would: `481.2 ms`, `12.5 s`, `8:15:20`."""
    if seconds >= 60:
        return display.duration(seconds)
    if 0 < seconds < SHORT_S:
        return f"under {1000 * SHORT_S:g} ms"
    return f"{seconds:.3g} s" if seconds >= 1 or not seconds else f"{1000 * seconds:.4g} ms"
