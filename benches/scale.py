#!/usr/bin/env python3
"""How a large installation would be loaded: `python3 benches/scale.py` prints the tables of docs/scale.md.

No measurement: a model of what the stages before Redis leave for it, with the costs that `make bench` and docs/performance.md
measured. Every assumption is a constant here.
"""

import random
from itertools import accumulate

DECISIONS = 10_000_000
REPLICAS, THREADS = 200, 2
SHARDS = 32
KEYS = 10_000_000
# Of one decision on a replica, in microseconds: answered from a lease or a cached denial, and asked of Redis.
LOCAL_US, ASKED_US = 6.5, 41.0
# A check in a call of many costs Redis so much, and a call so much besides.
CHECK_US, CALL_US = 4.1, 3.6
# A call goes out when the one before it is back, or at once where none is under way.
ROUND_TRIP_S = 0.0005
# A lease lives at most a second: a key that one replica sees less often is asked for each time.
ASKS_PER_S = 1.0
FULL = 0.6
SHAPES = [("all keys alike", 0.0), ("Zipf 0.8", 0.8), ("Zipf 1.0", 1.0), ("Zipf 1.2", 1.2)]


def weights(exponent):
    """The share of each key, the most frequent first."""
    raw = [1 / rank**exponent for rank in range(1, KEYS + 1)]
    total = sum(raw)
    return [weight / total for weight in raw]


def checks(share, replicas, leases=True):
    """Checks a second of one key that reach Redis, over all replicas."""
    rate = DECISIONS * share / replicas
    return replicas * (min(rate, ASKS_PER_S) if leases else rate)


def batch(checks_per_s):
    """Checks in a call of one thread to one shard that asks so many a second."""
    return max(1.0, checks_per_s * ROUND_TRIP_S)


def shards(asked, count, seed=1):
    """Checks a second of each shard, with each key on one at random; a pure sum for the tail, where it makes no difference."""
    choose, loads = random.Random(seed), [0.0] * count
    head = 100_000
    for one in asked[:head]:
        loads[choose.randrange(count)] += one
    rest = sum(asked[head:]) / count
    return [load + rest for load in loads]


def redis_busy(per_s, replicas=REPLICAS):
    """Cores that a shard needs for so many checks a second."""
    size = batch(per_s / (replicas * THREADS))
    return per_s * (CHECK_US + CALL_US / size) / 1e6


def row(name, share, leases):
    asked = [checks(one, REPLICAS, leases) for one in share]
    total = sum(asked)
    loads = shards(asked, SHARDS)
    part = total / DECISIONS
    cores = DECISIONS / REPLICAS * (LOCAL_US * (1 - part) + ASKED_US * part) / 1e6
    mean, most = redis_busy(total / SHARDS), redis_busy(max(loads))
    needed = next(count for count in accumulate([SHARDS] * 64) if redis_busy(max(shards(asked, count))) <= FULL or count == 64 * SHARDS)
    needed = f"{needed}" if redis_busy(max(shards(asked, needed))) <= FULL else "no number: one key fills a shard"
    return f"| {name} | {'on' if leases else 'off'} | {part:.0%} | {cores:.2f} | {mean:.2f} | {most:.2f} | {needed} |"


def main():
    print("| keys | leases | of the decisions reach Redis | cores of a replica | cores of a shard, mean | hottest | shards for 60 % |")
    print("|---|---|---|---|---|---|---|")
    for name, exponent in SHAPES:
        share = weights(exponent)
        for leases in (True, False):
            print(row(name, share, leases), flush=True)


if __name__ == "__main__":
    main()
