#!/usr/bin/env python3
"""`make bench`: measures every row of the table, prints it, and writes docs/benchmarks.md and its plot."""

import argparse
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import admissions
import memory
import peers
import plot
import report
import rlqs
import rows
import startup
from cases import CASES, CONNECTIONS, STREAMS, USER, Results, Row, load, throughput
from certificates import Certificates
from processes import Load, Redis, RedisCluster, noop, sluicegate

ROOT = Path(__file__).resolve().parent.parent
LIMIT, WINDOW_S, DEMAND = 10_000, 4, 10_000
DIRECT = ("--deny-cache", "false", "--coalesce", "false", "--lease", "false")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="times that every case is measured")
    parser.add_argument("--seconds", type=float, default=2.5, help="length of one measurement")
    parser.add_argument("--only", default="", help="cases whose name contains this; writes no report")
    parser.add_argument("--binary", type=Path, required=True, help="the sluicegate binary, built in release")
    parser.add_argument("--bench-binary", type=Path, required=True, help="the sluicegate-bench binary, built in release")
    parser.add_argument("--peers", action="store_true", help="also the peers whose binaries E_BIN and LIMITADOR_BIN name")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks.md", help="the report")
    return parser.parse_args()


# A closed loop fills every queue on purpose; the failure mode must not answer in the store's place.
PATIENT = ("--store-timeout", "2s")
ROOM = ("--store", "memory", "--memory-max-keys", 2_000_000)
SERVERS = {
    "noop-tonic": lambda bench, _: bench.keep(noop(bench.bench_binary, bench.directory, "tonic")),
    "noop-own": lambda bench, _: bench.keep(noop(bench.bench_binary, bench.directory, "own")),
    "memory": lambda bench, _: bench.start("memory", *ROOM),
    "memory-1M": lambda bench, _: bench.start("memory-1M", *ROOM),
    "memory-tls": lambda bench, _: bench.start("memory-tls", *ROOM, *bench.certificates.listener()),
    "memory-mtls": lambda bench, _: bench.start("memory-mtls", *ROOM, *bench.certificates.listener(mutual=True)),
    "redis": lambda bench, redis: bench.start("redis", "--redis-url", redis.url, *PATIENT),
    "redis-tls": lambda bench, redis: bench.start(
        "redis-tls", "--redis-url", redis.tls_url, "--redis-tls-ca", bench.certificates.ca[0], *PATIENT
    ),
    "redis-direct": lambda bench, redis: bench.start("redis-direct", "--redis-url", redis.url, *PATIENT, *DIRECT),
    "cluster-3": lambda bench, redis: bench.start("cluster-3", "--redis-url", redis.url, *PATIENT),
    "cluster-6": lambda bench, redis: bench.start("cluster-6", "--redis-url", redis.url, *PATIENT),
}
SERVERS |= {name: lambda bench, redis, name=name: peers.start(bench, name, redis) for name in peers.PEERS}
REDIS = {
    "redis": lambda bench: bench.keep(Redis(bench.directory, 0, tls=bench.certificates)),
    "cluster-3": lambda bench: bench.keep(RedisCluster(bench.directory, 3)),
    "cluster-6": lambda bench: bench.keep(RedisCluster(bench.directory, 6)),
}


class Progress:
    """One line on the terminal, rewritten."""

    def __init__(self):
        self.start = time.monotonic()

    def __call__(self, text):
        line = f"[{time.monotonic() - self.start:4.0f} s] {text}"
        print(f"\r{line:<79}" if sys.stderr.isatty() else line, end="" if sys.stderr.isatty() else "\n", file=sys.stderr)
        sys.stderr.flush()


class Bench:
    """The processes of one run."""

    def __init__(self, binary, directory, stack, args):
        self.binary, self.directory, self.stack, self.args = binary, directory, stack, args
        self.bench_binary = args.bench_binary
        self.load = Load(args.bench_binary)
        self.progress = Progress()
        self.certificates = Certificates(self.directory)
        self.rules = self.directory / "rules"
        self.rules.mkdir()
        (self.rules / "bench.yaml").write_text((ROOT / "benches" / "rules.yaml").read_text())
        for domain, count in (("one-rule", 0), ("many-rules", 10_000)):
            (self.rules / f"{domain}.yaml").write_text(rules_of(domain, count))

    def keep(self, process):
        """Stops the process when the run ends, however it ends."""
        self.stack.callback(process.stop)
        return process

    def start(self, name, *flags):
        return self.keep(sluicegate(self.binary, self.directory, name, self.rules, *flags))

    def redis(self, number=0):
        return self.keep(Redis(self.directory, number))

    def measure(self, server, redis=None, before=None, **flags):
        """One run of the load; counts Redis' script calls over the same time."""
        calls = []

        def begin():
            if redis:
                calls.append(redis.script_calls())
            if before:
                before()

        flags = {"connections": CONNECTIONS, "streams": STREAMS, "threads": 1, "warmup": "500ms", **flags}
        flags.setdefault("duration", f"{self.args.seconds}s")
        if "tls" in flags:
            flags |= self.certificates.load(mutual=flags.pop("tls"))
        result = self.load.run([server], redis.processes if redis else [], begin, **flags)
        if redis:
            result["redis_calls"] = redis.script_calls() - calls[0]
        if "failure mode" in server.log.read_text(errors="replace"):
            raise RuntimeError(f"{server.what} answered without its store: see {server.log}; is the machine busy?")
        return result


def rules_of(domain, values):
    """A domain with one limit for each of so many values, or one limit for all."""
    limit = "rate_limit: {unit: minute, requests_per_unit: 100000000}"
    lines = [f"domain: {domain}", "descriptors:"]
    lines += [f"  - {{key: path, value: path-{n:010}, {limit}}}" for n in range(values)]
    if not values:
        lines.append(f"  - {{key: path, {limit}}}")
    return "\n".join(lines) + "\n"


def cases(bench, wanted):
    """Every case in every round, forwards and backwards, so that a drift of the machine evens out."""
    stores = {name: start(bench) for name, start in REDIS.items() if any(case.redis == name for case in wanted)}
    store_of = {case.server: stores.get(case.redis) for case in wanted}
    servers = {name: start(bench, store_of[name]) for name, start in SERVERS.items() if name in store_of}
    if "memory-1M" in servers:
        bench.progress("a million keys")
        fill(bench, servers["memory-1M"], USER)
    results = Results()
    for number in range(bench.args.rounds):
        for case in wanted if number % 2 == 0 else reversed(wanted):
            bench.progress(f"round {number + 1} of {bench.args.rounds}: {case.name}")
            results.add(case.name, bench.measure(servers[case.server], store_of[case.server], **case.flags))
    return results, servers, stores


def fill(bench, server, descriptor, keys=1_000_000):
    """Asks for so many different keys once."""
    flags = {"connections": CONNECTIONS, "streams": STREAMS, "warmup": "0s", "duration": "1h", "calls": keys}
    return bench.load.run([server], descriptor=descriptor, distribution="fresh", **flags)


def latency(bench, results, servers):
    """p99 of the Redis store and of the no-op at half of the former's top throughput, in turns."""
    rate = round(results.median("redis uniform", throughput) / 2 / 1000) * 1000
    flags = {**load(keys=100_000), "rate": rate}
    p99 = {"noop": [], "redis": []}
    for _ in range(bench.args.rounds):
        for name, server in (("noop", servers["noop-tonic"]), ("redis", servers["redis"])):
            bench.progress(f"latency at {rate}/s: {name}")
            p99[name].append(bench.measure(server, **flags)["latency_us"]["p99"])
    return rows.latency(median(p99["noop"]), median(p99["redis"]), rate)


def replicas(bench, count, windows):
    """Replicas on one Redis, one hot key, demand four times the limit."""
    bench.progress(f"admissions of {count} on one Redis")
    redis = bench.redis(count)
    servers = [bench.start(f"replica-{n}-of-{count}", "--redis-url", redis.url, *PATIENT) for n in range(count)]
    file = bench.directory / f"admissions-{count}"
    bench.load.run(
        servers,
        connections=4,
        streams=16,
        descriptor="window=hot",
        rate=DEMAND,
        warmup="0s",
        duration=f"{windows * WINDOW_S + 0.5}s",
        admissions=file,
    )
    window_us = WINDOW_S * 1_000_000
    admitted = admissions.read(file)
    worst = admissions.worst_window(admitted, window_us)
    first = admissions.first_window(admitted, window_us) / LIMIT
    run = admissions.long_run(admitted, window_us, windows) / (LIMIT * windows)
    case = f"{count} replica{'s' if count > 1 else ''}, limit {LIMIT:,}"
    return [
        Row(case, "admitted in the worst window", f"≤ {LIMIT:,}", f"{worst:,}", worst <= LIMIT),
        Row(case, "admitted in the first window", "≥ 99.5 %", f"{first:.1%}", first >= 0.995),
        Row(case, f"of an exact log's, {windows} windows", "≥ 95 %", f"{run:.1%}", run >= 0.95),
    ]


def main():
    args = arguments()
    wanted = [case for case in CASES + (peers.cases() if args.peers else []) if args.only in case.name]
    started = time.monotonic()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sluicegate-bench-")))
        bench = Bench(args.binary, directory, stack, args)
        results, servers, stores = cases(bench, wanted)
        if args.only:
            print(f"\n{report.raw(results)}")
            return
        table = rows.table(results)
        bench.progress("a round trip to Redis")
        table += rows.alone(results, stores["redis"].round_trip_us())
        table.append(latency(bench, results, servers))
        table += startup.rows(bench)
        table += rlqs.rows(bench)
        if args.peers:
            table += peers.rows(results)
            compared = {"sluicegate": servers["redis"], **{name: servers[name] for name in peers.named()}}
            table += peers.behaviour(bench, compared, stores["redis"])
        table += replicas(bench, 1, 4)
        table += replicas(bench, 4, 5)
        table += memory.rows(bench)
    print(f"\n{report.table(table)}")
    report.write(args.out, table, results, time.monotonic() - started, "make bench", args.rounds)
    plot.write(args.out.with_suffix(".svg"), results)
    print(f"written to {args.out} and {args.out.with_suffix('.svg').name}")


if __name__ == "__main__":
    main()
