"""What `sluicegate replay` and `sluicegate test` cost: lines per second of CPU, and a thousand cases over a virtual year.

CPU is user and system time of the process as the kernel counts it, so that waiting for a busy core does not count; what
else runs on the machine still takes its caches. Each figure is the best and the median of the rounds.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from statistics import median

RULES = """\
domain: shop
ext_authz:
  rate_limits:
    - actions: [{ remote_address: {} }]
    - match: { path: /login }
      actions: [{ path: {} }, { remote_address: {} }]
descriptors:
  - { key: remote_address, rate_limit: { name: address, unit: minute, requests_per_unit: 60 } }
  - key: path
    value: /login
    descriptors:
      - { key: remote_address, rate_limit: { name: login, unit: minute, requests_per_unit: 5 } }
"""
PATHS = ["/login", "/", "/cart", "/api/items", "/search?q=shoes", "/static/app.css", "/", "/"]
PER_SECOND = 5000
START = datetime(2026, 11, 28, 6, tzinfo=timezone.utc)


def requests(lines, keys):
    """(time, address, path): an eighth of the requests meets both rules."""
    chance = random.Random(1)
    for at in range(lines):
        key = chance.randrange(keys)
        address = f"10.{key >> 16 & 255}.{key >> 8 & 255}.{key & 255}"
        yield START + timedelta(seconds=at // PER_SECOND), address, PATHS[chance.randrange(len(PATHS))]


def common(path, lines, keys):
    with path.open("w") as log:
        for at, address, target in requests(lines, keys):
            log.write(f'{address} - - [{at:%d/%b/%Y:%H:%M:%S %z}] "GET {target} HTTP/1.1" 200 512\n')


def json_lines(path, lines, keys):
    with path.open("w") as log:
        for at, address, target in requests(lines, keys):
            line = {"start_time": f"{at:%Y-%m-%dT%H:%M:%S.000Z}", "method": "GET", "path": target, "client": address}
            log.write(json.dumps({**line, "status": 200, "bytes": 512}) + "\n")


def cases(path, count):
    """Each case has its own day of the year, and tries a limit for a second, an hour and a month."""
    path.with_name("year.yaml").write_text(
        "domain: year\ndescriptors:\n"
        + "".join(
            f"  - {{ key: {unit}, rate_limit: {{ name: {unit}, unit: {unit}, requests_per_unit: 3 }} }}\n"
            for unit in ("second", "hour", "month")
        )
    )
    with path.open("w") as tests:
        tests.write("rules: [year.yaml]\nstart: 2026-01-01T00:00:00Z\ntests:\n")
        for case in range(count):
            unit = ("second", "hour", "month")[case % 3]
            ask = f"request: {{ descriptors: [[{unit}: user-{case}]] }}"
            day = case * 365 // count
            tests.write(f"  - name: case {case}\n    steps:\n")
            tests.write(f"      - {{ at: {day}d, times: 3, {ask}, expect: allowed }}\n")
            tests.write(f"      - {{ {ask}, expect: {{ denied_by: {unit} }} }}\n")
            tests.write(f"      - {{ at: 365d, {ask}, expect: {'denied' if unit == 'month' and day > 334 else 'allowed'} }}\n")


def run(arguments, directory):
    """CPU seconds, wall seconds and the largest memory in MB."""
    began = time.monotonic()
    with subprocess.Popen(arguments, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        out = process.stdout.read()
        errors = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{arguments}: {out.decode()[-2000:]}{errors.decode()[-2000:]}")
    return usage.ru_utime + usage.ru_stime, time.monotonic() - began, usage.ru_maxrss / 1024


def report(what, lines, runs):
    rates = [lines / cpu / 1e6 for cpu, _, _ in runs]
    memory = max(memory for _, _, memory in runs)
    print(f"{what:46} {max(rates):5.2f} M/s best, {median(rates):5.2f} M/s median, {memory:4.0f} MB", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", type=Path, required=True)
    parser.add_argument("--lines", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    binary = str(options.binary.resolve())
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "rules.yaml").write_text(RULES)
        for what, write, keys in [
            ("common log format", common, 20_000),
            ("common log format", common, 1_000_000),
            ("JSON lines", json_lines, 20_000),
            ("JSON lines", json_lines, 300_000),
        ]:
            log = directory / "access.log"
            write(log, options.lines, keys)
            replay = [binary, "replay", "--rules", "rules.yaml", "--json", log.name]
            report(f"{what}, {keys:,} keys", options.lines, [run(replay, directory) for _ in range(options.rounds)])
        cases(directory / "year.test.yaml", 1000)
        runs = [run([binary, "test", "year.test.yaml"], directory) for _ in range(options.rounds)]
        cpu, wall = min(cpu for cpu, _, _ in runs), min(wall for _, wall, _ in runs)
        print(f"test, 1,000 cases over a virtual year: {cpu:.2f} s of CPU, {wall:.2f} s in all (best)")


if __name__ == "__main__":
    main()
