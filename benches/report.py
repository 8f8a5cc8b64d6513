"""Prints the table, and writes docs/benchmarks.md."""

import datetime
import os
import platform
import subprocess
from pathlib import Path

from cases import CONNECTIONS, STREAMS, redis_us, server_us, throughput

VERDICT = {True: "pass", False: "miss", None: "-"}


def machine():
    model = "unknown CPU"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release()}"


def commit():
    def git(*words):
        return subprocess.run(["git", *words], capture_output=True, text=True, check=False).stdout.strip()

    changed = " with local changes" if git("status", "--porcelain", "--untracked-files=no") else ""
    return f"{git('rev-parse', '--short', 'HEAD')}{changed}"


def table(rows):
    head = ["case", "what", "target", "measured", "", "note"]
    cells = [head] + [
        [row.case, row.quantity, row.target, row.measured, VERDICT[row.held], row.detail] for row in rows
    ]
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def raw(results):
    """What every case came to, medians over the rounds."""
    head = "| case | decisions/s | server CPU | Redis CPU | Redis calls | p50 | p99 | OVER_LIMIT |"
    lines = [head, "|---|---|---|---|---|---|---|---|"]
    for case, reports in results.reports.items():
        def value(read, case=case):
            return results.median(case, read)

        over = value(lambda r: r["over_limit"] / max(r["calls"], 1))
        redis = calls = "-"
        if reports[0]["watched_us"]:
            redis = f"{value(redis_us):.2f} µs"
            calls = f"{value(lambda r: r['redis_calls'] / r['calls']):.4f}"
        lines.append(
            f"| {case} | {value(throughput):,.0f} | {value(server_us):.2f} µs | {redis} | {calls} "
            f"| {value(lambda r: r['latency_us']['p50']):.0f} µs | {value(lambda r: r['latency_us']['p99']):.0f} µs "
            f"| {over:.0%} |"
        )
    return "\n".join(lines)


def write(path, rows, results, seconds, command, rounds):
    held = sum(row.held is True for row in rows)
    missed = sum(row.held is False for row in rows)
    text = f"""# Benchmarks

Written by `{command}` in {seconds:.0f} s; do not edit.

- Machine: {machine()}; load generator, servers and Redis share it.
- Date: {datetime.date.today().isoformat()}; commit: {commit()}.
- Load: {CONNECTIONS} connections × {STREAMS} streams, closed loop, one thread; descriptors of about 40 bytes.
- Every figure is the median of {rounds} rounds; a ratio is the median of the ratios within each round, because what
  slows the machine slows both sides of it. CPU is user and system time of the process as the kernel counts it.
- *no-op* is a tonic server on tokio's default runtime that decodes the request and answers OK
  (`sluicegate-bench noop`). The note says how the same compares with a no-op on sluicegate's own listener
  (`--shape own`), which costs less.

{held} targets held, {missed} missed.

{table(rows)}

![Throughput and latency](benchmarks.svg)

## Each case

{raw(results)}

To compare another server, point the load generator at it: `sluicegate-bench load --target http://host:port --help`; for
envoyproxy/ratelimit and limitador: [peers.md](peers.md).
docs/performance.md says where the time goes.
"""
    Path(path).write_text(text)
