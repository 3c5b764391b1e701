"""The one queue, driven by a clock of its own: how late the last of many tasks ends, and that nobody starves."""

import heapq
import itertools
import threading

import numpy as np
import pytest

from vitpipe.infra.ray.one_queue import OneQueue, Ticket


def makespan(
    lengths, machine, bundle=lambda number: {"GPU": 1.0}, told=lambda seconds: seconds, arrivals=None, ahead=0
):
    """Simulated seconds until the last of `lengths` has ended on a machine that runs what is handed to it in turn, as
    Ray does: first come, first started, as soon as what it asks for is free."""
    ready, running, free, now, number = [], [], dict(machine), 0.0, itertools.count()
    queue = OneQueue(lambda: machine, ahead)
    tickets = [Ticket(n, bundle(n), told(seconds), ready.append) for n, seconds in enumerate(lengths)]
    waves = sorted({at for at in arrivals or [0.0]})
    coming = [(at, [t for t in tickets if (arrivals[t.item] if arrivals else 0.0) == at]) for at in waves]
    ended = []
    while coming or ready or running:
        while coming and coming[0][0] <= now:
            queue.join(coming.pop(0)[1])
        for ticket in list(ready):
            if all(free[name] + 1e-9 >= amount for name, amount in ticket.bundle.items()):
                ready.remove(ticket)
                free = {name: amount - ticket.bundle.get(name, 0) for name, amount in free.items()}
                heapq.heappush(running, (now + lengths[ticket.item], next(number), ticket))
        following = [running[0][0]] if running else []
        now = min([*following, *([coming[0][0]] if coming else [])], default=now)
        while running and running[0][0] <= now:
            _, _, ticket = heapq.heappop(running)
            free = {name: amount + ticket.bundle.get(name, 0) for name, amount in free.items()}
            ended.append(ticket.item)
            queue.leave([ticket])
    assert sorted(ended) == list(range(len(lengths)))
    return now


def best(lengths, slots):
    """What no order can beat."""
    return max(sum(lengths) / slots, max(lengths))


def mixed(seed, kind):
    rng = np.random.default_rng(seed)
    if kind == "benchmarks":  # ten data sets of four rates each, from minutes to hours
        return np.repeat(rng.uniform(1, 100, 10), 4).tolist()
    return (rng.lognormal(0, 1.2, 40) if kind == "lognormal" else rng.uniform(1, 30, 40)).tolist()


@pytest.mark.parametrize("kind", ["benchmarks", "lognormal", "uniform"])
@pytest.mark.parametrize("slots", [2, 4, 8])
def test_forty_tasks_of_mixed_length_end_nearly_as_early_as_they_could(kind, slots):
    for seed in range(20):
        lengths = mixed(seed, kind)
        assert makespan(lengths, {"GPU": slots}) <= 1.15 * best(lengths, slots)


def test_in_the_order_of_their_coming_they_would_not():
    lengths = [*([1.0] * 39), 20.0]
    assert makespan(lengths, {"GPU": 4}) == 20
    assert makespan(lengths, {"GPU": 4}, told=lambda seconds: 1.0) > 1.15 * best(lengths, 4)


def test_fractions_of_a_gpu_share_it():
    lengths = mixed(0, "uniform")
    quarters = makespan(lengths, {"GPU": 2.0, "CPU": 64.0}, lambda number: {"GPU": 0.25, "CPU": 1.0})
    assert quarters <= 1.15 * best(lengths, 8)
    tenths = makespan([1.0] * 10, {"GPU": 1.0}, lambda number: {"GPU": 0.1})
    assert tenths == 1


def test_an_estimate_that_is_wrong_by_a_factor_still_orders():
    lengths = mixed(1, "benchmarks")
    assert makespan(lengths, {"GPU": 4}, told=lambda seconds: 7 * seconds) <= 1.15 * best(lengths, 4)


def test_who_comes_later_but_is_longer_goes_first():
    lengths = [4.0] * 20 + [30.0]
    late = makespan(lengths, {"GPU": 2}, arrivals=[0.0] * 20 + [1.0])
    assert late <= 1.15 * best(lengths, 2)
    behind = makespan(lengths, {"GPU": 2}, arrivals=[0.0] * 20 + [1.0], ahead=64)
    assert behind > 1.15 * best(lengths, 2), "handed over all at once, they would go in the order of their coming"


def test_a_large_one_is_not_starved_by_small_ones():
    order = []
    queue = OneQueue(lambda: {"CPU": 4.0})
    tickets = [Ticket(n, {"CPU": 4.0 if n == 5 else 1.0}, 1.0, order.append) for n in range(40)]
    queue.join(tickets)
    while len(order) < 40:
        going = next(ticket for ticket in order if ticket in queue._out)
        queue.leave([going])
    assert [ticket.item for ticket in order].index(5) == 5


def test_those_who_want_something_else_pass():
    order = []
    queue = OneQueue(lambda: {"GPU": 1.0, "CPU": 8.0})
    queue.join([Ticket("trial", {"GPU": 1.0, "CPU": 1.0}, 9.0, order.append),
                Ticket("next trial", {"GPU": 1.0, "CPU": 1.0}, 8.0, order.append),
                Ticket("shard", {"CPU": 1.0}, 1.0, order.append)])  # fmt: skip
    assert [ticket.item for ticket in order] == ["trial", "shard"]


def test_what_nobody_estimated_goes_first_and_new_machines_are_used():
    order, has = [], {"CPU": 1.0}
    queue = OneQueue(lambda: has)
    queue.join([Ticket("trial", {"CPU": 1.0}, 9.0, order.append), Ticket("shard", {"CPU": 1.0}, None, order.append)])
    assert [ticket.item for ticket in order] == ["shard"]
    has["CPU"] = 2.0
    queue.look()
    assert [ticket.item for ticket in order] == ["shard", "trial"]


def test_what_fits_nowhere_goes_alone_and_an_autoscaler_sees_what_is_wanted():
    order = []
    queue = OneQueue(lambda: {"CPU": 2.0})
    queue.join([Ticket(n, {"GPU": 1.0}, 1.0, order.append) for n in range(3)])
    assert len(order) == 1, "Ray says what is missing"
    order.clear()
    growing = OneQueue(lambda: {"CPU": 2.0}, ahead=4)
    growing.join([Ticket(n, {"CPU": 1.0}, 1.0, order.append) for n in range(30)])
    assert len(order) == 6


def driven(queue, order):
    """End what was handed on, the first first, until nothing is left; the items in the order of their turns."""
    while queue._out:
        queue.leave([next(ticket for ticket in order if ticket in queue._out)])
    return [ticket.item for ticket in order]


@pytest.mark.parametrize("ahead", [0, 4])
def test_a_gang_goes_before_tasks_that_wait_of_unknown_length_too(ahead):
    order = []
    queue = OneQueue(lambda: {"CPU": 2.0}, ahead)
    queue.join([Ticket(n, {"CPU": 1.0}, None, order.append) for n in range(20)])
    begun = len(order)
    queue.join([Ticket("gang", {"CPU": 2.0}, None, order.append, is_gang=True)])
    assert driven(queue, order).index("gang") == begun == 2 + ahead


def test_no_task_passes_a_gang_that_an_autoscaler_was_shown():
    """It was handed to Ray as one more than fits: what is freed meanwhile is for its ranks."""
    order, has = [], {"CPU": 2.0}
    queue = OneQueue(lambda: has, ahead=4)
    busy = [Ticket(n, {"CPU": 1.0}, 9.0, order.append) for n in range(2)]
    queue.join(busy)
    gang = Ticket("gang", {"CPU": 2.0}, None, order.append, is_gang=True)
    queue.join([gang])
    assert order[-1] is gang
    queue.join([Ticket(f"late {n}", {"CPU": 1.0}, None, order.append) for n in range(9)])
    queue.join([Ticket("elsewhere", {"disk": 1.0}, None, order.append)])
    queue.leave(busy[:1])
    assert [ticket.item for ticket in order] == [0, 1, "gang", "elsewhere"], "one core is not for a task meanwhile"
    queue.leave(busy[1:])
    assert queue._out[gang], "it has its cores now"
    queue.leave([gang])
    assert sum(str(ticket.item).startswith("late") for ticket in order) >= 2


def test_a_gang_for_which_machines_are_missing_holds_nobody_back():
    order = []
    queue = OneQueue(lambda: {"CPU": 2.0}, ahead=4)
    queue.join([Ticket("gang", {"CPU": 64.0}, None, order.append, is_gang=True)])
    queue.join([Ticket(n, {"CPU": 1.0}, 1.0, order.append) for n in range(2)])
    assert [ticket.item for ticket in order] == ["gang", 0, 1]


def test_many_nodes_at_once():
    has, done, lock = {"CPU": 3.0}, [], threading.Lock()
    queue = OneQueue(lambda: has)

    def node(name):
        inbox = []
        tickets = [Ticket((name, n), {"CPU": 1.0}, float(n), inbox.append) for n in range(20)]
        queue.join(tickets)
        ended = 0
        while ended < 20:
            for ticket in list(inbox):
                inbox.remove(ticket)
                assert sum(queue._out.values()) <= 3
                queue.leave([ticket])
                ended += 1
                with lock:
                    done.append(ticket.item)

    threads = [threading.Thread(target=node, args=(name,)) for name in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(done)) == 100
