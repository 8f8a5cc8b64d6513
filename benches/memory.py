"""What a counter costs in memory, in both stores, and whether that grows with the limit."""

import json
import subprocess

from cases import Row

KEYS = 200_000
# (algorithm, bytes a key may cost)
TARGETS = (("token_bucket", 120), ("sliding_window", 320))
LIMITS = (100, 1_000_000)
HOLDS = 100_000


def filled(bench, *flags):
    return asked(bench, "memory", "--keys", KEYS, *flags)["bytes_per_key"]


def asked(bench, *flags):
    command = [bench.bench_binary, *map(str, flags)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stderr}")
    return json.loads(done.stdout)


def in_redis(bench, number, *flags):
    """Growth of used_memory (everything that Redis has allocated, its tables included), and the length of a key's name."""
    redis = bench.redis(f"memory-{number}")
    before = redis.used_memory()
    filled(bench, "--redis-url", redis.url, *flags)
    keys = redis.keys()
    if keys != KEYS:
        raise RuntimeError(f"{keys} keys in Redis, not {KEYS}")
    grown = (redis.used_memory() - before) / keys
    name = len(redis.command("RANDOMKEY").rstrip(b"\r\n"))
    redis.stop()
    return grown, name


def floor(bench, name):
    """What Redis takes for a key with a name of so many bytes, a value of one byte, and a time to live."""
    redis = bench.redis("memory-floor")
    before = redis.used_memory()
    redis.fill(KEYS, name)
    grown = (redis.used_memory() - before) / KEYS
    redis.stop()
    return grown


def rows(bench):
    found = []
    for algorithm, target in TARGETS:
        for store in ("memory", "redis"):
            bench.progress(f"memory per key: {algorithm}, {store}")
            costs, note = [], ""
            for limit in LIMITS:
                flags = ("--algorithm", algorithm, "--limit", limit)
                if store == "memory":
                    costs.append(filled(bench, *flags))
                else:
                    cost, name = in_redis(bench, f"{algorithm}-{limit}", *flags)
                    costs.append(cost)
                    note = f"of which {floor(bench, name):.0f} B is a key of {name} bytes with a value of one byte"
            small, large = costs
            case = f"{store} store, {algorithm}"
            found.append(Row(case, "bytes per key", f"≤ {target} B", f"{max(costs):.0f} B", max(costs) <= target, note))
            flat = f"{small:.0f} → {large:.0f} B"
            what = f"limit {LIMITS[0]:,} → {LIMITS[1]:,}"
            found.append(Row(case, what, "flat", flat, large <= small * 1.1 + 4))
    return found + holds(bench)


def holds(bench):
    """Open holds of a replica that decides in memory; in Redis they are Redis' own."""
    found = []
    for keys, where in ((HOLDS, "one a counter"), (1, "all of one counter")):
        bench.progress(f"{HOLDS:,} holds, {where}")
        case = f"{HOLDS:,} open holds, {where}"
        cost = asked(bench, "holds", "--holds", HOLDS, "--keys", keys)
        megabytes = cost["resident_bytes"] / 1e6
        found.append(Row(case, "resident memory", "≤ 30 MB", f"{megabytes:.1f} MB", megabytes <= 30))
        for call in ("hold", "settle"):
            longest, usual = cost[f"{call}_ns"]["max"] / 1e6, cost[f"{call}_ns"]["p50"] / 1e3
            what = f"longest {call}, CPU"
            found.append(Row(case, what, "≤ 1 ms", f"{longest:.2f} ms", longest <= 1, f"p50 {usual:.1f} µs"))
    return found
