#!/usr/bin/env python3
"""`make ablation`: what each part of the path to Redis costs and is worth; writes docs/ablation.md."""

import argparse
import datetime
import tempfile
from contextlib import ExitStack
from pathlib import Path

import report
from cases import ALONE, Results, load, redis_us, server_us, throughput
from run import PATIENT, ROOT, Bench

SHAPES = {
    "uniform": ("100,000 keys, all as often, far from their limits", load(keys=100_000)),
    "zipf": ("10,000 keys, Zipf 1.0, far from their limits", load(keys=10_000, distribution="zipf:1.0")),
    "attack": ("1,000 keys, 95 % of the requests over their limits", load("caller={key}", keys=1000)),
    "1x1": ("100,000 keys, one call at a time", ALONE),
}
# name: (what `sluicegate-bench serve` is told, whether it runs on the system's allocator)
VARIANTS = {
    "all on": ((), False),
    "no leases": (("--lease", "false"), False),
    "no cache of denials": (("--deny-cache", "false"), False),
    "no joining of calls for one key": (("--coalesce", "false"), False),
    "no batching": (("--without", "batching"), False),
    "no per-core runtimes": (("--without", "cores"), False),
    "system allocator": ((), True),
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="times that every case is measured")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one measurement")
    parser.add_argument("--bench-binary", type=Path, required=True, help="sluicegate-bench, built in release")
    parser.add_argument("--system-binary", type=Path, required=True, help="the same on the system's allocator")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "ablation.md", help="the report")
    return parser.parse_args()


def measured(bench, args):
    redis = bench.redis()
    servers = {}
    for name, (flags, system) in VARIANTS.items():
        bench.binary = args.system_binary if system else args.bench_binary
        # Counters of their own, so that no variant finds what another has spent.
        prefix = ("--key-prefix", f"{len(servers)}:")
        servers[name] = bench.start(name.replace(" ", "-"), "--redis-url", redis.url, *PATIENT, *prefix, *flags)
    results = Results()
    for number in range(args.rounds):
        for shape, (_, flags) in SHAPES.items():
            order = list(VARIANTS) if number % 2 == 0 else list(reversed(VARIANTS))
            for name in order:
                bench.progress(f"round {number + 1} of {args.rounds}: {shape}, {name}")
                results.add((shape, name), bench.measure(servers[name], redis, **flags))
    return results


def p99(result):
    return result["latency_us"]["p99"]


def line(results, shape, name):
    case, base = (shape, name), (shape, "all on")

    def cell(value, unit):
        return f"{results.median(case, value):,.{1 if unit == ' µs' else 0}f}{unit} ({results.ratio(case, base, value):.2f} ×)"

    calls = results.median(case, lambda r: r["redis_calls"] / r["calls"])
    cells = [cell(throughput, "/s"), cell(server_us, " µs"), cell(redis_us, " µs"), f"{calls:.3f}", cell(p99, " µs")]
    return f"| {name} | {' | '.join(cells)} |"


def text(results, rounds):
    parts = [
        "# Ablation: what each part is worth",
        "",
        "Written by `make ablation`; do not edit. docs/performance.md says what follows from it.",
        "",
        f"- Machine: {report.machine()}; load generator, servers and Redis share it.",
        f"- Date: {datetime.date.today().isoformat()}; commit: {report.commit()}.",
        f"- Medians of {rounds} rounds; in parentheses the median of the ratios to *all on* within each round.",
        "- CPU is that of one decision; *calls* are calls of the script in Redis for one decision.",
    ]
    for shape, (what, _) in SHAPES.items():
        parts += ["", f"## {shape}: {what}", "", "| | decisions | server CPU | Redis CPU | calls | p99 |", "|---|---|---|---|---|---|"]
        parts += [line(results, shape, name) for name in VARIANTS]
    return "\n".join(parts) + "\n"


def main():
    args = arguments()
    args.binary = args.bench_binary
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sluicegate-ablation-")))
        results = measured(Bench(args.binary, directory, stack, args), args)
    written = text(results, args.rounds)
    print(f"\n{written}")
    args.out.write_text(written)


if __name__ == "__main__":
    main()
