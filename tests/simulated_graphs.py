"""Random graphs of gangs and fan-outs for the simulated queue, simpler orders, and what no order can beat."""

import itertools
import math
from dataclasses import dataclass, field

import numpy as np

from vitpipe.infra.chains import longest_chains
from vitpipe.infra.ray.machines import Reservation
from vitpipe.infra.ray.one_queue import OneQueue
from vitpipe.infra.simulation.graphs import SimulatedNode, run_graph


@dataclass(frozen=True)
class Work(SimulatedNode):
    """A node on cores alone."""

    @property
    def longest(self):
        return max(self.tasks)

    @property
    def area(self):
        return sum(self.tasks) * self.bundle["CPU"] * max(1, self.ranks)


def work(tasks, cpus=1.0, ranks=0, needs=()):
    return Work(tuple(tasks), {"CPU": cpus}, ranks, tuple(needs))


@dataclass
class Ran:
    """What became of a graph."""

    seconds: float
    bound: float
    """Of the longest chain and all work."""
    tight: float
    """With the gangs of which no two have room at once."""
    gangs: dict = field(default_factory=dict)
    """Of each when it came, the longest that then ran, its turn and its end."""

    def lone(self):
        """(seconds waited, the longest that ran when it came) of gangs that came and went while no other was there."""
        for id, (came, longest, turn, _) in self.gangs.items():
            others = (span for other, span in self.gangs.items() if other != id)
            if all(end <= came or start > turn for start, _, _, end in others):
                yield turn - came, longest


def bounds(graph, machines):
    """What no order can beat: the longest chain, and all work on all machines. And a tighter one: before a node all
    that it needs has to be done, and behind it all that needs it; and gangs of which no two have room at once go one
    after the other."""
    cpus = sum(one["CPU"] for one in machines.values())
    back = longest_chains({id: one.longest for id, one in graph.items()}, {id: one.needs for id, one in graph.items()})
    loose = max(max(back.values()), sum(one.area for one in graph.values()) / cpus)
    above, below, heads = {}, {id: set() for id in graph}, {}
    for id, one in graph.items():
        above[id] = set(one.needs).union(*(above[need] for need in one.needs))
        for need in above[id]:
            below[need].add(id)
        work = sum(graph[other].area for other in above[id]) / cpus
        heads[id] = max([work, *(heads[need] + graph[need].longest for need in one.needs)])
    tails = {
        id: max(back[id] - one.longest, sum(graph[other].area for other in below[id]) / cpus)
        for id, one in graph.items()
    }
    through = max(heads[id] + max(one.longest, one.area / cpus) + tails[id] for id, one in graph.items())
    size = {id: one.ranks * one.bundle["CPU"] for id, one in graph.items() if one.ranks}
    apart = [
        min(heads[id] for id in some) + sum(graph[id].longest for id in some) + min(tails[id] for id in some)
        for count in range(1, len(size) + 1)
        for some in itertools.combinations(size, count)
        if all(size[a] + size[b] > cpus for a, b in itertools.combinations(some, 2))
    ]
    return loose, max([loose, through, *apart])


def simulate(graph, machines, make=OneQueue, told=lambda rng, seconds: seconds, seed=0):
    """Run a graph, its estimates as `told` has them; nobody may hold more than there is."""
    rng = np.random.default_rng(seed)
    nodes = {
        id: Work(one.tasks, one.bundle, one.ranks, one.needs, tuple(told(rng, seconds) for seconds in one.tasks))
        for id, one in graph.items()
    }
    timeline = run_graph(nodes, machines, make)
    assert timeline.spans.keys() == graph.keys(), "somebody starved"
    held = dict.fromkeys(machines, 0.0)
    changes = [
        (at, sign, turn)
        for turn in timeline.turns
        for at, sign in ((turn.began, 1), (turn.ended, -1))
        if turn.ended > turn.began
    ]
    for _, sign, turn in sorted(changes, key=lambda one: one[:2]):
        for name in turn.machines:
            held[name] += sign * graph[turn.node].bundle["CPU"]
            assert held[name] <= machines[name]["CPU"] + 1e-6, "more than there is"
    gangs = {}
    for id in (id for id, one in graph.items() if one.ranks):
        span = timeline.spans[id]
        longest = max(
            (turn.ended for turn in timeline.turns if turn.node != id and turn.began <= span.came < turn.ended),
            default=span.came,
        )
        gangs[id] = (span.came, longest - span.came, span.began, span.ended)
    return Ran(timeline.seconds, *bounds(graph, machines), gangs)


def random_graph(seed):
    """A pipeline as people write them, and machines that could hold each of its gangs."""
    rng = np.random.default_rng(seed)
    per = int(rng.choice([2, 4, 8, 16]))
    machines = {f"m{n}": {"CPU": float(per)} for n in range(int(rng.choice([1, 1, 2, 4, 8])))}
    total = per * len(machines)
    backbones, benchmarks = int(rng.integers(1, 5)), int(rng.integers(1, 8))
    graph = {}

    def lengths(number, typical):
        return tuple(float(one) for one in rng.lognormal(math.log(typical), 0.6, number))

    for n in range(benchmarks):
        graph[f"data-{n}"] = work(lengths(int(rng.integers(1, 12)), 20))
    graph["images"] = work(lengths(int(rng.integers(4, 60)), 30))
    for b in range(backbones):
        ranks = int(rng.integers(1, total + 1))
        cpus = float(rng.choice([one for one in (1, 2, 4) if one <= per]))
        ranks = max(1, min(ranks, len(machines) * int(per // cpus)))
        graph[f"net-{b}"] = work(lengths(1, rng.uniform(100, 2000)), cpus, ranks, ("images",))
        graph[f"weights-{b}"] = work(lengths(1, 20), needs=(f"net-{b}",))
        for n in range(benchmarks):
            needs = (f"weights-{b}", f"data-{n}")
            cpus = float(rng.choice([1, 1, min(2, per)]))
            trials = int(rng.integers(2, 16))
            graph[f"sweep-{b}-{n}"] = work(lengths(trials, rng.uniform(20, 300)), cpus, needs=needs)
            graph[f"tuned-{b}-{n}"] = work(lengths(int(rng.integers(1, 4)), 60), cpus, needs=(f"sweep-{b}-{n}",))
            if rng.random() < 0.5:
                graph[f"probe-{b}-{n}"] = work(lengths(int(rng.integers(1, 8)), 15), needs=needs)
    for n in range(benchmarks):
        if rng.random() < 0.5:
            graph[f"scratch-{n}"] = work(lengths(int(rng.integers(2, 10)), 150), needs=(f"data-{n}",))
    graph["table"] = work(lengths(1, 10), needs=tuple(graph))
    return graph, machines


class FirstCome(OneQueue):
    """The order of arrival, with backfilling."""

    def _place(self, ticket):
        return (False, 0.0, 0.0, ticket.order)


class Strict(OneQueue):
    """Nobody passes anybody: what the queue did before it knew gangs and chains, where all want the same."""

    def _place(self, ticket):
        return (not ticket.is_gang, 0.0, -(ticket.seconds or math.inf), ticket.order)

    def _hand_on(self):
        for place in sorted(self._waiting):
            if not self.there.has_room(self._waiting[place].shape) or not self._goes(place, self.clock(), []):
                return


class StrictFirstCome(Strict):
    """Nobody passes anybody, in the order of arrival."""

    def _place(self, ticket):
        return (False, 0.0, 0.0, ticket.order)


class LongestFirst(OneQueue):
    """The longest task first, with backfilling, whatever waits for it."""

    def _place(self, ticket):
        return (not ticket.is_gang, 0.0, -(ticket.seconds or math.inf), ticket.order)


def keeping_room(graph, machines, told, seed, error=0.0):
    """Run a graph by a queue that keeps room for gangs that are still to come, so near as it is known when they come:
    `error` is the spread of the logarithm of the time until then. A first run without it says when they come."""
    rng = np.random.default_rng(seed + 1)
    came = {id: times[0] for id, times in simulate(graph, machines, OneQueue, told, seed).gangs.items()}
    above = {}
    for id, one in graph.items():
        above[id] = set(one.needs).union(*(above[need] for need in one.needs))
    believed = {id: at * float(rng.lognormal(0, error)) for id, at in came.items()}

    class KeepsRoom(OneQueue):
        def join(self, tickets):
            for ticket in tickets:
                believed.pop(ticket.node, None)
            super().join(tickets)

        def _goes(self, place, now, reserved):
            ticket, kept = self._waiting[place], []
            if not ticket.is_gang and self._out:
                coming = ((id, at) for id, at in believed.items() if at > now and ticket.node not in above[id])
                kept = [self._kept(id, at, now) for id, at in coming]
            return super()._goes(place, now, [*reserved, *filter(None, kept)])

        def _kept(self, id, at, now):
            shape = graph[id].shape
            held = self.there.reserve(shape, now, [])
            if held is None or held.start >= at:
                return held
            rooms = {
                name: self.there._there[name].spare(shape.asked, count, at, now)
                for name, count in held.machines.items()
            }
            return Reservation(held.machines, at, max(at, held.expected), rooms)

    return simulate(graph, machines, KeepsRoom, told, seed)


def wrong(rng, seconds):
    """An estimate that is off by a factor of about two either way, and for every fifth missing."""
    return None if rng.random() < 0.2 else seconds * float(rng.lognormal(0, 0.7))
