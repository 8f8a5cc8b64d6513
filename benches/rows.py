"""The table: what the targets say and what was measured."""

from cases import (
    Row,
    calls_per_decision,
    calls_per_denied,
    p50,
    per_cpu,
    redis_us,
    server_us,
    throughput,
)

# limitador with Redis, measured beside a no-op tonic server on another 2-core machine: 14-15 k/s where the no-op did
# 75-81 k/s. Used as a share of the no-op's throughput when no limitador is measured in the same run.
LIMITADOR_SHARE = 14_500 / 78_000


def near_the_floor(results, case, cpu_target, throughput_target=None):
    """CPU against the no-op tonic server, in one run; what the same costs on our own listener is said beside it."""
    ratio = results.ratio(case, "noop tonic", server_us)
    own = results.ratio(case, "noop own", server_us)
    rows = [
        Row(
            case,
            "server CPU per decision",
            f"≤ {cpu_target} × no-op",
            f"{results.median(case, server_us):.2f} µs = {ratio:.2f} ×",
            ratio <= cpu_target,
            f"{own:.2f} × a no-op on our listener",
        )
    ]
    if throughput_target:
        share = results.ratio(case, "noop tonic", throughput)
        own = results.ratio(case, "noop own", throughput)
        rows.append(
            Row(
                case,
                "throughput",
                f"≥ {throughput_target} × no-op",
                f"{results.median(case, throughput):,.0f}/s = {share:.2f} ×",
                share >= throughput_target,
                f"{own:.2f} × a no-op on our listener",
            )
        )
    return rows


def growth(results, case, base, quantity, target, value=server_us):
    ratio = results.ratio(case, base, value)
    measured = f"{results.median(base, value):.2f} → {results.median(case, value):.2f} µs = {ratio:.2f} ×"
    return Row(case, quantity, f"≤ {target} ×", measured, ratio <= target)


def at_most(results, case, quantity, target, value, unit=""):
    measured = results.median(case, value)
    return Row(case, quantity, f"≤ {target}{unit}", f"{measured:.3g}{unit}", measured <= target)


def redis_rows(results):
    against = "limitador-redis 100k" in results.reports
    if against:
        times = results.ratio("redis uniform", "limitador-redis 100k", throughput)
        detail = "measured in this run"
    else:
        times = results.ratio("redis uniform", "noop tonic", throughput) / LIMITADOR_SHARE
        detail = f"limitador taken as {LIMITADOR_SHARE:.2f} × the no-op's throughput, measured elsewhere"
    cpu = results.ratio("redis uniform", "memory 100k", server_us)
    share = results.ratio("redis uniform", "memory 100k", throughput)
    zipf = results.ratio("redis zipf", "memory zipf", throughput)
    return [
        *near_the_floor(results, "redis uniform", 2.0),
        at_most(results, "redis uniform", "Redis CPU per decision", 8, redis_us, " µs"),
        Row("redis uniform", "server CPU per decision", "≤ 1.3 × memory", f"{cpu:.2f} ×", cpu <= 1.3),
        Row("redis uniform", "throughput", "≥ 0.75 × memory", f"{share:.2f} ×", share >= 0.75),
        Row("redis uniform", "throughput", "≥ 3 × limitador", f"{times:.1f} ×", times >= 3, detail),
        *near_the_floor(results, "redis zipf", 1.3),
        at_most(results, "redis zipf", "Redis calls per decision", 0.2, calls_per_decision),
        Row("redis zipf", "throughput", "≥ 0.8 × memory store", f"{zipf:.2f} ×", zipf >= 0.8),
        *near_the_floor(results, "redis attack", 1.2),
        at_most(results, "redis attack", "Redis calls per denied request", 0.01, calls_per_denied),
    ]


def alone(results, round_trip_us):
    """One call at a time: nothing is batched, nobody else is waited for."""
    floor = results.median("noop 1x1", p50) + round_trip_us
    took = results.median("redis 1x1", p50)
    cpu = results.ratio("redis 1x1", "noop 1x1", server_us)
    return [
        Row(
            "redis 1x1",
            "p50",
            "≤ no-op + PING + 30 µs",
            f"{took:.0f} µs = {floor:.0f} + {took - floor:.0f}",
            took <= floor + 30,
            f"a PING takes {round_trip_us:.0f} µs",
        ),
        Row("redis 1x1", "server CPU per decision", "≤ 1.5 × no-op", f"{cpu:.2f} ×", cpu <= 1.5),
    ]


def cluster_rows(results):
    """Servers share two cores with everything else: what a bigger cluster does is seen in each one's CPU."""
    rows = []
    for masters in (3, 6):
        case = f"cluster of {masters}"
        share = results.ratio(case, "redis uniform", per_cpu)
        busiest = results.median(case, lambda r: max(r["watched_us"]))
        note = f"the busiest master: {busiest:.2f} µs per decision"
        rows.append(Row(case, "decisions per server CPU", "≥ 0.9 × one Redis", f"{share:.2f} ×", share >= 0.9, note))
    three, six = (results.median(f"cluster of {n}", lambda r: max(r["watched_us"])) for n in (3, 6))
    grown = Row("3 → 6 masters", "capacity by the busiest's CPU", "≥ 1.8 ×", f"{three / six:.2f} ×", three / six >= 1.8)
    return [*rows, grown]


def tls_rows(results):
    return [
        growth(results, "memory tls", "memory 100k", "TLS listener", 1.35),
        growth(results, "memory mtls", "memory 100k", "TLS listener, client certificates", 1.35),
        growth(results, "redis tls", "redis uniform", "TLS to Redis", 1.35),
    ]


def held_rows(results):
    """A hold and its settlement are two calls; what both cost, in plain decisions."""
    found = []
    for case, base, what, value in (
        ("memory held", "memory 100k", "server CPU", server_us),
        ("redis held", "redis uniform", "server CPU", server_us),
        ("redis held", "redis uniform", "Redis CPU", redis_us),
        ("redis held 1x1", "redis 1x1", "server CPU", server_us),
        ("redis held 1x1", "redis 1x1", "Redis CPU", redis_us),
    ):
        plain, both = results.median(base, value), 2 * results.median(case, value)
        ratio = 2 * results.ratio(case, base, value)
        measured = f"{plain:.2f} → {both:.2f} µs = {ratio:.2f} ×"
        found.append(Row(case, f"hold and settle: {what}", "≤ 2.2 × a decision", measured, ratio <= 2.2))
    return found


def table(results):
    """Rows that come from the cases of every round."""
    rows = []
    for case, cpu in (("memory 1k", 0.7), ("memory 100k", 0.7), ("memory denied", 1.15)):
        rows += near_the_floor(results, case, cpu, 0.9)
    rows += redis_rows(results)
    ten = "10 descriptors against 1"
    rows.append(growth(results, "memory 10 descriptors", "memory 1k", ten, 3))
    rows.append(growth(results, "redis 10 descriptors", "redis 1k", ten, 3))
    two = "two limits on a node against one"
    rows.append(growth(results, "memory 2 limits", "memory 1k", two, 1.3))
    rows.append(growth(results, "redis 2 limits", "redis 1k", two, 1.3))
    rows.append(growth(results, "redis 2 limits", "redis 1k", f"{two}: Redis CPU", 1.3, redis_us))
    # Calls that are under way when the measurement begins or ends are counted on one side only.
    rows.append(at_most(results, "redis 2 limits", "Redis calls per decision", 1.05, calls_per_decision))
    rows.append(growth(results, "memory 10k rules", "memory 1 rule", "10,000 rules against 1", 1.2))
    for case in ("check 1k", "check denied"):
        rows.append(growth(results, case, "noop check", "ext_authz: a Check against a no-op Check", 1.0))
    rows.append(growth(results, "memory 1M", "memory 1k", "1,000,000 keys against 1,000", 1.2))
    return [*rows, *held_rows(results), *cluster_rows(results), *tls_rows(results)]


def latency(noop, redis, rate):
    """p99 at half of the top throughput."""
    extra = redis - noop
    measured = f"{noop / 1000:.2f} → {redis / 1000:.2f} ms"
    return Row("redis uniform", f"p99 at {rate:,}/s", "≤ no-op + 1 ms", measured, extra <= 1000)
