"""The one queue, driven by a clock of its own: how late the last of many tasks ends, and that nobody starves."""

import heapq
import itertools
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain_queue import PlainQueue

from vitpipe.infra.ray.machines import Machines
from vitpipe.infra.ray.one_queue import OneQueue, Ticket


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def one(**sizes):
    """A single machine."""
    return lambda: {"m": {name: float(amount) for name, amount in sizes.items()}}


def makespan(lengths, machine, bundle=lambda number: {"GPU": 1.0}, told=lambda seconds: seconds, arrivals=None):
    """Simulated seconds until the last of `lengths` has ended on a machine that runs what is handed to it in turn, as
    Ray does: first come, first started, as soon as what it asks for is free."""
    ready, running, free, now, number = [], [], dict(machine), 0.0, itertools.count()
    queue = OneQueue(lambda: {"m": machine}, lambda: now)
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
    behind = makespan(lengths, {"GPU": 2}, arrivals=[0.0] * 20 + [1.0], told=lambda seconds: 40 - seconds)
    assert behind > 1.15 * best(lengths, 2), "the other way round it would not"


def test_a_large_one_is_not_starved_by_small_ones():
    order = []
    queue = OneQueue(one(CPU=4), Clock())
    tickets = [Ticket(n, {"CPU": 4.0 if n == 5 else 1.0}, None, order.append) for n in range(40)]
    queue.join(tickets)
    assert driven(queue, order).index(5) == 5


def test_those_who_want_something_else_pass():
    order = []
    queue = OneQueue(one(GPU=1, CPU=8), Clock())
    queue.join([Ticket("trial", {"GPU": 1.0, "CPU": 1.0}, 9.0, order.append),
                Ticket("next trial", {"GPU": 1.0, "CPU": 1.0}, 8.0, order.append),
                Ticket("shard", {"CPU": 1.0}, 1.0, order.append)])  # fmt: skip
    assert [ticket.item for ticket in order] == ["trial", "shard"]


def test_what_nobody_estimated_goes_first_and_new_machines_are_used():
    order, has = [], {"a": {"CPU": 1.0}}
    queue = OneQueue(lambda: dict(has), Clock())
    queue.join([Ticket("trial", {"CPU": 1.0}, 9.0, order.append), Ticket("shard", {"CPU": 1.0}, None, order.append)])
    assert [ticket.item for ticket in order] == ["shard"]
    has["b"] = {"CPU": 1.0}
    queue.look()
    assert [(ticket.item, ticket.machines) for ticket in order] == [("shard", ("a",)), ("trial", ("b",))]


def test_what_fits_nowhere_does_not_go_and_holds_nobody_back():
    order, has = [], {"a": {"CPU": 2.0}}
    queue = OneQueue(lambda: dict(has), Clock())
    queue.join([Ticket("gang", {"CPU": 2.0}, None, order.append, is_gang=True, count=2)])
    queue.join([Ticket(n, {"GPU": 1.0}, 1.0, order.append) for n in range(3)])
    queue.join([Ticket(n, {"CPU": 1.0}, 1.0, order.append) for n in range(2)])
    assert [ticket.item for ticket in order] == [0, 1]
    has["b"] = {"CPU": 2.0}
    queue.look()
    assert driven(queue, order)[:3] == [0, 1, "gang"]


def driven(queue, order):
    """End what was handed on, the first first, until nothing is left; the items in the order of their turns."""
    while queue._out:
        queue.leave([next(ticket for ticket in order if ticket in queue._out)])
    return [ticket.item for ticket in order]


def gang(ranks, cpus, order, **more):
    return Ticket("gang", {"CPU": float(cpus)}, more.pop("seconds", None), order.append, is_gang=True, count=ranks,
                  **more)  # fmt: skip


def test_a_gang_goes_before_tasks_that_wait_of_unknown_length_too():
    order = []
    queue = OneQueue(one(CPU=2), Clock())
    queue.join([Ticket(n, {"CPU": 1.0}, None, order.append) for n in range(20)])
    queue.join([gang(2, 1, order)])
    assert driven(queue, order).index("gang") == 2


def test_who_ends_in_time_slips_in_front_of_a_gang_and_who_does_not_waits():
    order, clock = [], Clock()
    queue = OneQueue(one(CPU=2), clock)
    long, short = Ticket("long", {"CPU": 1.0}, 100.0, order.append), Ticket("short", {"CPU": 1.0}, 10.0, order.append)
    queue.join([long, short])
    queue.join([gang(2, 1, order)])
    queue.join([Ticket("fits", {"CPU": 1.0}, 80.0, order.append), Ticket("late", {"CPU": 1.0}, 95.0, order.append)])
    queue.join([Ticket("unknown", {"CPU": 1.0}, None, order.append)])
    clock.now = 10.0
    queue.leave([short])
    assert [ticket.item for ticket in order] == ["long", "short", "fits"]
    clock.now = 90.0
    queue.leave([order[-1]])
    assert len(order) == 3, "nothing that ends before 100"
    clock.now = 101.0  # the estimate was too small: it may end at any moment
    queue.join([Ticket("tiny", {"CPU": 1.0}, 0.1, order.append)])
    assert len(order) == 3
    queue.leave([long])
    assert order[-1].item == "gang"


def test_nobody_slips_in_front_where_an_end_is_not_known():
    order = []
    queue = OneQueue(one(CPU=2), Clock())
    queue.join([Ticket(n, {"CPU": 1.0}, None, order.append) for n in range(2)])
    queue.join([gang(2, 1, order), Ticket("tiny", {"CPU": 1.0}, 0.1, order.append)])
    queue.leave(order[:1])
    assert len(order) == 2


def test_what_was_measured_corrects_estimates():
    order, clock = [], Clock()
    queue = OneQueue(one(CPU=2), clock)
    first = Ticket("first", {"CPU": 1.0}, 1.0, order.append, node="tuned")
    long = Ticket("long", {"CPU": 1.0}, 110.0, order.append, node="other")
    queue.join([first, long])
    clock.now = 10.0
    queue.leave([first], ended=True)  # ten times as long as was thought
    queue.join([gang(2, 1, order)])
    queue.join([Ticket("20 s are 200", {"CPU": 1.0}, 20.0, order.append, node="tuned"),
                Ticket("20 s", {"CPU": 1.0}, 20.0, order.append, node="else")])  # fmt: skip
    assert [ticket.item for ticket in order] == ["long", "first", "20 s"]


def test_what_was_measured_corrects_the_ends_of_those_that_run():
    """Tasks that take a tenth of what was thought do not all slip in front of a gang, one by one."""
    order, clock = [], Clock()
    queue = OneQueue(one(CPU=2), clock)
    tasks = [Ticket(number, {"CPU": 1.0}, 10.0, order.append, node="tuned") for number in range(6)]
    queue.join(tasks)
    clock.now = 1.0
    queue.join([gang(2, 1, order)])
    for task in tasks[:2]:
        clock.now += 0.1
        queue.leave([task], ended=True)
    assert [ticket.item for ticket in order] == [0, 1, "gang"]


def test_bundles_do_not_straddle_machines():
    """Eight machines of one CPU are no two of four, whatever the sum; and two that are whole are kept whole."""
    order, has = [], {f"small {n}": {"CPU": 1.0} for n in range(8)}
    queue = OneQueue(lambda: dict(has), Clock())
    wanted = gang(2, 4, order)
    queue.join([wanted])
    queue.join([Ticket(n, {"CPU": 1.0}, 1.0, order.append) for n in range(8)])
    assert "gang" not in [ticket.item for ticket in order] and len(order) == 8
    has |= {"large a": {"CPU": 4.0}, "large b": {"CPU": 4.0}}
    queue.look()
    assert set(wanted.machines) == {"large a", "large b"}


def test_a_gang_waits_for_whole_machines_and_tasks_go_on_elsewhere():
    order, clock = [], Clock()
    queue = OneQueue(lambda: {name: {"CPU": 4.0} for name in "abcd"}, clock)
    queue.join([Ticket(n, {"CPU": 1.0}, None, order.append) for n in range(200)])
    wanted = gang(2, 4, order)
    queue.join([wanted])
    ended = 0
    while not wanted.machines:  # they end in the order of their beginning, which is spread over all machines
        clock.now += 1
        queue.leave([order[ended]])
        ended += 1
    assert ended <= 16, "no task that began later than the gang came kept it waiting"


def test_tasks_leave_machines_whole_and_gpus_to_those_who_want_them():
    order = []
    queue = OneQueue(lambda: {"gpu": {"CPU": 8.0, "GPU": 8.0}, "a": {"CPU": 4.0}, "b": {"CPU": 4.0}}, Clock())
    queue.join([Ticket(n, {"CPU": 1.0}, 1.0, order.append) for n in range(6)])
    assert [ticket.machines for ticket in order] == [("a",)] * 4 + [("b",)] * 2


def test_a_gang_that_is_elsewhere_holds_its_room_there():
    order = []
    queue = OneQueue(lambda: {"a": {"CPU": 2.0}, "b": {"CPU": 2.0}}, Clock())
    wanted = gang(2, 1, order)
    queue.join([wanted])
    assert wanted.machines == ("a", "a")
    queue.placed(wanted, ["b", "b", "a"])
    queue.join([Ticket(n, {"CPU": 1.0}, 1.0, order.append) for n in range(4)])
    assert [ticket.machines for ticket in order[1:]] == [("a",)]
    queue.leave([wanted])
    assert len(order) == 5


def test_what_a_node_held_is_counted_from_each_turn_to_each_leaving():
    order, clock = [], Clock()
    queue = OneQueue(lambda: {"a": {"CPU": 8.0, "GPU": 2.0}, "b": {"CPU": 8.0, "GPU": 2.0}}, clock)
    wanted = Ticket("gang", {"CPU": 3.0, "GPU": 1.0}, None, order.append, is_gang=True, count=2, node="train")
    tasks = [Ticket(n, {"GPU": 0.5}, 10.0, order.append, node="tune") for n in range(6)]
    queue.join([wanted])
    clock.now = 10.0
    queue.placed(wanted, ["a", "b", "b"])  # an elastic gang has become larger
    queue.join(tasks)
    clock.now = 14.0
    assert queue.held("train") == queue.held("train") == {"CPU": 2 * 3 * 10 + 3 * 3 * 4, "GPU": 2 * 10 + 3 * 4}
    assert queue.held("tune") == {"GPU": 2 * 0.5 * 4}, "four wait"
    clock.now = 20.0
    queue.leave(tasks[:2])
    clock.now = 21.0
    queue.leave([wanted, *tasks[2:]])
    assert queue.held("tune") == {"GPU": 2 * 0.5 * 10 + 2 * 0.5 * 1}, "two never had a turn"
    assert queue.held("train")["GPU"] == 2 * 10 + 3 * 11 and queue.held("nobody") == {}


def test_the_longest_chain_goes_first_whatever_its_tasks_take():
    order = []
    queue = OneQueue(one(CPU=1), Clock())
    queue.rank({"long tasks": 50.0, "long chain": 70.0, "short": 10.0})
    queue.join([Ticket(name, {"CPU": 1.0}, seconds, order.append, node=name)
                for name, seconds in (("short", 1.0), ("long tasks", 50.0), ("long chain", 5.0))])  # fmt: skip
    assert [ticket.item for ticket in order] == ["long chain"]
    queue.rank({"long tasks": 50.0, "short": 60.0})
    queue.join([Ticket("nobody knows", {"CPU": 1.0}, 1.0, order.append, node="nobody knows")])
    assert driven(queue, order) == ["long chain", "nobody knows", "short", "long tasks"]


def test_machines_that_go_take_what_ran_there_with_them():
    order, has = [], {"a": {"CPU": 1.0}, "b": {"CPU": 1.0}}
    queue = OneQueue(lambda: dict(has), Clock())
    queue.join([Ticket(n, {"CPU": 1.0}, 1.0, order.append) for n in range(3)])
    del has["a"]
    queue.look()
    queue.leave([order[0]])
    assert len(order) == 2, "what it held is gone"
    queue.join([order[0]])
    queue.leave([order[1]])
    assert order[-1] is order[0] and order[0].machines == ("b",), "it keeps its place"


BUNDLES = [{"CPU": 1.0}, {"CPU": 4.0}, {"GPU": 1.0, "CPU": 1.0}, {"GPU": 0.5}, {"CPU": 2.0, "disk": 1.0}]
MACHINE = st.fixed_dictionaries({"CPU": st.sampled_from([1.0, 4.0, 9.0]), "GPU": st.sampled_from([0.0, 1.0, 2.0])})
EVENT = st.one_of(
    st.tuples(
        st.sampled_from(BUNDLES),
        st.sampled_from([None, 1.0, 2.0, 5.0, 20.0]),
        st.sampled_from([0, 0, 1, 2, 3]),
        st.integers(1, 4),
        st.sampled_from("xyz"),
    ),
    st.tuples(st.integers(0, 99), st.sampled_from([0.0, 0.5, 3.0]), st.booleans()),
    st.lists(MACHINE, min_size=1, max_size=4),
    st.dictionaries(st.sampled_from("xyz"), st.sampled_from([1.0, 10.0])),
)


@given(st.lists(EVENT, max_size=60))
def test_the_lines_hand_on_what_a_look_at_all_that_wait_does(events):
    """Tickets that come, leave in between or come again, machines that come and go, and chains that become others."""
    has, made, clock = {"m": {"CPU": 4.0, "GPU": 1.0}}, [], Clock()
    orders: tuple[list, list] = [], []
    queues = [OneQueue(lambda: has, clock), PlainQueue(lambda: has, clock)]
    for event in events:
        if isinstance(event, list):
            has = {f"m{n}": sizes for n, sizes in enumerate(event)}
            for queue in queues:
                queue.look()
        elif isinstance(event, dict):
            for queue in queues:
                queue.rank(event)
        elif len(event) == 3:
            number, passed, ended = event
            clock.now += passed
            if made:
                pair = made[number % len(made)]
                for queue, ticket in zip(queues, pair, strict=True):
                    queue.leave([ticket], ended)
                    if number % 7 == 0:
                        queue.join([ticket])
        else:
            bundle, seconds, ranks, count, node = event
            new = [
                tuple(
                    Ticket((len(made), n), bundle, seconds, order.append, ranks > 0, max(1, ranks), node)
                    for order in orders
                )
                for n in range(count)
            ]
            made += new
            for queue, tickets in zip(queues, zip(*new, strict=True), strict=True):
                queue.join(tickets)
        turns = [[(ticket.item, ticket.machines) for ticket in order] for order in orders]
        assert turns[0] == turns[1]
        assert [ticket.item for ticket in queues[0]._out] == [ticket.item for ticket in queues[1].out]


@pytest.mark.parametrize("losses", [1, 2, 3])
def test_who_slipped_in_front_and_was_lost_comes_again(losses):
    """Its line had ended with it, and what is left of that has the place of the line that it begins anew."""
    order, clock = [], Clock()
    queue = OneQueue(one(CPU=2), clock)
    running, wanted = Ticket("running", {"CPU": 1.0}, 50.0, order.append), gang(2, 1, order, seconds=10.0)
    short = Ticket("short", {"CPU": 1.0}, 1.0, order.append, node="b")
    long = Ticket("long", {"CPU": 1.0}, 100.0, order.append, node="a")
    for ticket in (running, wanted, long, short):
        queue.join([ticket])
    for _ in range(losses):
        queue.leave([short])
        queue.join([short])
    assert [ticket.item for ticket in order] == ["running"] + ["short"] * (losses + 1)
    for clock.now, ticket in ((2.0, short), (50.0, running), (60.0, wanted), (160.0, long)):
        queue.leave([ticket], ended=True)
    assert [ticket.item for ticket in order][-2:] == ["gang", "long"] and not queue._waiting and not queue._lines


def test_what_is_late_ends_after_now_however_sums_are_rounded():
    """At 16 estimates less one unit in the last place the next doubling rounds to now itself."""
    late = Ticket("late", {"CPU": 1.0}, 1.0, print, began=23.5003, ends=24.5003)
    assert late.ends_at_last(39.500299999999996) > 39.5003
    for number in range(20_000):
        late.began, now = number / 7, number / 7 + 2.0 ** (number % 30) * (1 + (number % 3 - 1) * 2**-52)
        late.ends = late.began + 1.0
        assert late.ends_at_last(now) > now


def test_an_event_costs_little_however_many_wait(monkeypatch):
    """Counted in comparisons of what is asked for with what is free, not in seconds."""
    looked = []
    for name in ("has_room", "chosen", "reserve"):
        original = getattr(Machines, name)
        monkeypatch.setattr(Machines, name, lambda *args, original=original: looked.append(1) or original(*args))
    order = []
    queue = OneQueue(one(CPU=4, GPU=1), Clock())
    queue.join([Ticket(n, BUNDLES[n % 4], float(n % 97), order.append) for n in range(20_000)])
    ended = 0
    while ended < len(order):
        queue.leave([order[ended]])
        ended += 1
    assert ended == 20_000 and not queue._waiting and not queue._lines
    assert len(looked) < 8 * 20_000


def test_many_nodes_at_once():
    done, lock = [], threading.Lock()
    queue = OneQueue(one(CPU=3))

    def node(name):
        inbox = []
        tickets = [Ticket((name, n), {"CPU": 1.0}, float(n), inbox.append) for n in range(20)]
        queue.join(tickets)
        ended = 0
        while ended < 20:
            for ticket in list(inbox):
                inbox.remove(ticket)
                assert len(queue._out) <= 3
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
