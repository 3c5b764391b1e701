"""How late graphs of gangs and fan-outs end on simulated machines, by the run's own queue and by simpler orders."""

import numpy as np
from simulated_graphs import (
    FirstCome,
    LongestFirst,
    Strict,
    StrictFirstCome,
    keeping_room,
    random_graph,
    simulate,
    wrong,
)

from vitpipe.infra.ray.one_queue import OneQueue

GRAPHS = 200
ORDERS = {
    "critical path, backfilling": OneQueue,
    "longest first, backfilling": LongestFirst,
    "first come, backfilling": FirstCome,
    "longest first, nobody passes": Strict,
    "first come, nobody passes": StrictFirstCome,
}


def main() -> None:
    print(f"{GRAPHS} random graphs; seconds over max(longest chain, work over machines); seconds a lone gang waits")
    head = ("order", "mean", "median", "95 %", "max", "<= 1.10", "mean of the tight bound", "gang waits over its bound")
    print(" | ".join(head))
    for told, how in ((lambda rng, seconds: seconds, "true estimates"), (wrong, "wrong and missing estimates")):
        print(how)
        for name, make in ORDERS.items():
            ran = [simulate(*random_graph(seed), make, told, seed) for seed in range(GRAPHS)]
            ratios, tight = (np.array([one.seconds / getattr(one, of) for one in ran]) for of in ("bound", "tight"))
            gangs = [gang for one in ran for gang in one.lone()]
            late = sum(waited > longest + 1e-6 for waited, longest in gangs)
            print(
                f"{name} | {ratios.mean():.3f} | {np.median(ratios):.3f} | {np.quantile(ratios, 0.95):.3f} | "
                f"{ratios.max():.3f} | {np.mean(ratios <= 1.10):.0%} | {tight.mean():.3f} | {late} of {len(gangs)}"
            )
        for error in (0.0, 0.4):
            kept = [keeping_room(*random_graph(seed), told, seed, error) for seed in range(GRAPHS // 2)]
            mean = np.mean([one.seconds / one.bound for one in kept])
            print(f"room kept for gangs to come, their coming known to a factor of {np.exp(error):.1f} | {mean:.3f}")


if __name__ == "__main__":
    main()
