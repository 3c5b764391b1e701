"""The one queue, driven by a clock of its own: how late the last of many tasks ends, and that nobody starves."""

import heapq
import itertools
import threading
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitpipe.infra.ray import one_queue
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


@dataclass
class PlainQueue(OneQueue):
    """The same rule, written as it is said: at each event all that wait are looked at, in their order."""

    tickets: list = field(default_factory=list)

    def join(self, tickets):
        for ticket in tickets:
            ticket.order = next(self._numbers) if ticket.order < 0 else ticket.order
            self.tickets.append(ticket)
        self._has = self._has or self.totals()
        self._hand_on()

    def leave(self, tickets):
        self.tickets = [ticket for ticket in self.tickets if ticket not in tickets]
        for ticket in tickets:
            self._out.pop(ticket, None)
        self._hand_on()

    def _hand_on(self):
        free = Counter(self._has)
        for ticket in [ticket for ticket, fitted in self._out.items() if fitted]:
            free.subtract(ticket.bundle)
        kept, lacking, spoken = set(), set(), set()
        for ticket in sorted(self.tickets, key=lambda ticket: (ticket not in self._out, ticket.place)):
            waits = ticket not in self._out
            if (waits and ticket.shape in spoken) or (not waits and (self._out[ticket] or not ticket.is_gang)):
                continue
            lacks = {name for name, amount in ticket.bundle.items() if free[name] < amount}
            fits = not lacks and not lacking & ticket.bundle.keys()
            if fits:
                free.subtract(ticket.bundle)
            beyond = sum(not fitted for fitted in self._out.values())
            if waits and not fits and self._out and (beyond >= self.ahead or kept & ticket.bundle.keys()):
                lacking |= lacks
                spoken.add(ticket.shape)
                continue
            if ticket.is_gang and all(self._has.get(name, 0) >= amount for name, amount in ticket.bundle.items()):
                kept |= lacks
                lacking |= kept
            self._out[ticket] = fits
            if waits:
                ticket.go(ticket)


BUNDLES = [{"CPU": 1.0}, {"CPU": 4.0}, {"GPU": 1.0, "CPU": 1.0}, {"GPU": 0.5}, {"CPU": 2.0, "disk": 1.0}]
EVENT = st.one_of(
    st.tuples(st.sampled_from(BUNDLES), st.sampled_from([None, 1.0, 2.0, 5.0]), st.booleans(), st.integers(1, 4)),
    st.integers(0, 99),
    st.fixed_dictionaries({"CPU": st.sampled_from([1.0, 4.0, 9.0]), "GPU": st.sampled_from([0.0, 1.0, 2.0])}),
)


@given(st.lists(EVENT, max_size=60), st.sampled_from([0, 1, 4]))
def test_the_lines_hand_on_what_a_look_at_all_that_wait_does(events, ahead):
    """Tickets that come, leave in between or come again, and machines that come and go."""
    has, made = {"CPU": 4.0, "GPU": 1.0}, []
    orders: tuple[list, list] = [], []
    queues = [OneQueue(lambda: has, ahead), PlainQueue(lambda: has, ahead)]
    for event in events:
        if isinstance(event, dict):
            has = event
            for queue in queues:
                queue.look()
        elif isinstance(event, int):
            if made:
                pair = made[event % len(made)]
                for queue, ticket in zip(queues, pair, strict=True):
                    queue.leave([ticket])
                    if event % 7 == 0:
                        queue.join([ticket])
        else:
            bundle, seconds, is_gang, count = event
            new = [
                tuple(Ticket((len(made), n), bundle, seconds, order.append, is_gang) for order in orders)
                for n in range(count)
            ]
            made += new
            for queue, tickets in zip(queues, zip(*new, strict=True), strict=True):
                queue.join(tickets)
        assert [ticket.item for ticket in orders[0]] == [ticket.item for ticket in orders[1]]
        assert [(t.item, fits) for t, fits in queues[0]._out.items()] == [
            (t.item, fits) for t, fits in queues[1]._out.items()
        ]


def test_an_event_costs_little_however_many_wait(monkeypatch):
    """Counted in comparisons of what is asked for with what is free, not in seconds."""
    looked = []
    original = one_queue._take
    monkeypatch.setattr(one_queue, "_take", lambda *args: looked.append(1) or original(*args))
    order = []
    queue = OneQueue(lambda: {"CPU": 4.0, "GPU": 1.0}, ahead=2)
    queue.join([Ticket(n, BUNDLES[n % 4], float(n % 97), order.append) for n in range(20_000)])
    ended = 0
    while ended < len(order):
        queue.leave([order[ended]])
        ended += 1
    assert ended == 20_000 and not queue._waiting and not queue._lines
    assert len(looked) < 6 * 20_000


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
