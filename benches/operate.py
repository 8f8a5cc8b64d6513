#!/usr/bin/env python3
"""What operators' questions cost decisions: `python3 benches/operate.py --binary … --bench-binary …` (docs/operate.md).

Decisions through Redis at a steady rate, measured in turn while nobody asks; while `/top` and searches of all counters for a
reset run in loops at a process beside (which takes its share of the cores, but cannot block); and while they run at the process
that decides."""

import argparse
import json
import tempfile
import threading
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from processes import Load, Redis, free_port, sluicegate

TOKEN = "operate-bench-token-0123456789"
RATE, KEYS, SECONDS = 1000, 100_000, 3
RULES = """
domain: bench
descriptors:
  - key: user
    rate_limit: { unit: hour, requests_per_unit: 1000000 }
"""
DRY_RUN = json.dumps({"domain": "bench", "rule": "user", "match": "user=nobody*"}).encode()


class Questions:
    """Asks a process' admin port in loops until the end of the block."""

    def __init__(self, port):
        self.base = f"http://127.0.0.1:{port}/api/v1"
        self.asked = {"top": 0, "search": 0}
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=loop) for loop in (self.top, self.search)]

    def top(self):
        while not self.stop.is_set():
            urllib.request.urlopen(f"{self.base}/top?limit=100", timeout=20).read()
            self.asked["top"] += 1

    def search(self):
        headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
        while not self.stop.is_set():
            request = urllib.request.Request(f"{self.base}/counters/reset", data=DRY_RUN, headers=headers)
            try:
                urllib.request.urlopen(request, timeout=20).read()
            except urllib.error.HTTPError as error:
                if error.code not in (404, 409):
                    raise
            self.asked["search"] += 1

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, required=True, help="the sluicegate binary, built in release")
    parser.add_argument("--bench-binary", type=Path, required=True, help="the sluicegate-bench binary, built in release")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        rules, token = directory / "rules.yaml", directory / "token"
        rules.write_text(RULES)
        token.write_text(TOKEN)

        def start(name, *flags):
            admin = free_port()
            process = sluicegate(options.binary, directory, name, rules, *flags, "--admin-token-file", token, admin=admin)
            stack.callback(process.stop)
            return process, admin

        redis, other = Redis(directory), Redis(directory, 1)
        stack.callback(redis.stop), stack.callback(other.stop)
        patient = ("--store-timeout", "2s")
        decides, its_port = start("decides", "--redis-url", redis.url, *patient)
        beside, beside_port = start("beside", "--redis-url", other.url, *patient)
        load = Load(options.bench_binary)
        flags = {"domain": "bench", "descriptor": "user=user-{key}", "keys": KEYS, "connections": 2, "streams": 16}
        for server in (decides, beside):
            load.run([server], duration="6s", **flags)
        found = {"nobody": [], "beside": [], "here": []}
        asked = dict.fromkeys(found, "")
        for _ in range(options.rounds):
            for name, port in (("nobody", None), ("beside", beside_port), ("here", its_port)):
                with ExitStack() as during:
                    questions = during.enter_context(Questions(port)) if port else None
                    found[name].append(load.run([decides], duration=f"{SECONDS}s", warmup="500ms", rate=RATE, **flags))
                if questions:
                    each = (f"{count / (SECONDS + 0.5):.0f} {what}/s" for what, count in questions.asked.items())
                    asked[name] = ", ".join(each)
        for name, reports in found.items():
            p50, p99 = (median(report["latency_us"][part] for report in reports) for part in ("p50", "p99"))
            print(f"{name:8} p50 {p50 / 1000:5.2f} ms  p99 {p99 / 1000:6.2f} ms  {asked[name]}")


if __name__ == "__main__":
    main()
