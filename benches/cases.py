"""What is measured: the load of each case, and the rows of the table with their targets."""

from dataclasses import dataclass, field
from statistics import median

CONNECTIONS = 2
STREAMS = 64
# The same descriptor, about 40 bytes on the wire, wherever a case does not say otherwise.
USER = "user=user-{key}-0123456789"


@dataclass
class Case:
    """One load on one server, measured in every round."""

    name: str
    server: str
    flags: dict = field(default_factory=dict)
    redis: str | None = None


def load(descriptor=USER, keys=1000, distribution="uniform", **more):
    return {"descriptor": descriptor, "keys": keys, "distribution": distribution, **more}


# One call at a time: what a caller waits for.
ALONE = load(keys=100_000, connections=1, streams=1)
# Of two calls the first holds, the second settles; two or three holds of a key within their ttl of 10 s.
HELD = load("held=user-{key}-0123456789", keys=100_000, settle=True)
HELD_ALONE = HELD | {"connections": 1, "streams": 1}

CASES = [
    Case("noop tonic", "noop-tonic", load()),
    Case("noop own", "noop-own", load()),
    Case("noop check", "noop-tonic", load(service="ext_authz")),
    Case("memory 1k", "memory", load()),
    Case("memory 100k", "memory", load(keys=100_000)),
    Case("memory denied", "memory", load("spent=user-{key}-0123456789")),
    Case("memory zipf", "memory", load(keys=10_000, distribution="zipf:1.0")),
    Case("memory 10 descriptors", "memory", load(descriptors_per_request=10)),
    Case("memory 2 limits", "memory", load("both=user-{key}-0123456789")),
    Case("memory 1 rule", "memory", load("path=path-{key}", keys=10_000, domain="one-rule")),
    Case("memory 10k rules", "memory", load("path=path-{key}", keys=10_000, domain="many-rules")),
    Case("check 1k", "memory", load(service="ext_authz")),
    Case("check denied", "memory", load("spent=user-{key}-0123456789", service="ext_authz")),
    Case("memory 1M", "memory-1M", load(keys=1_000_000)),
    Case("memory held", "memory", HELD),
    Case("redis uniform", "redis", load(keys=100_000), "redis"),
    Case("redis zipf", "redis", load(keys=10_000, distribution="zipf:1.0"), "redis"),
    Case("redis attack", "redis", load("caller={key}", keys=1000), "redis"),
    Case("redis held", "redis", HELD, "redis"),
    Case("redis tls", "redis-tls", load(keys=100_000), "redis"),
    Case("cluster of 3", "cluster-3", load(keys=100_000), "cluster-3"),
    Case("cluster of 6", "cluster-6", load(keys=100_000), "cluster-6"),
    Case("noop 1x1", "noop-tonic", ALONE),
    Case("memory 1x1", "memory", ALONE),
    Case("redis 1x1", "redis", ALONE, "redis"),
    Case("redis held 1x1", "redis", HELD_ALONE, "redis"),
    Case("memory tls", "memory-tls", load(keys=100_000, tls=False)),
    Case("memory mtls", "memory-mtls", load(keys=100_000, tls=True)),
    Case("redis 1k", "redis-direct", load(), "redis"),
    Case("redis 2 limits", "redis-direct", load("both=user-{key}-0123456789"), "redis"),
    Case("redis 10 descriptors", "redis-direct", load(descriptors_per_request=10), "redis"),
]


@dataclass
class Row:
    """One line of the table."""

    case: str
    quantity: str
    target: str
    measured: str
    held: bool | None
    detail: str = ""


class Results:
    """Reports by case and round."""

    def __init__(self):
        self.reports = {}

    def add(self, case, report):
        self.reports.setdefault(case, []).append(report)

    def median(self, case, value):
        return median(value(report) for report in self.reports[case])

    def ratio(self, case, base, value):
        """Median over the rounds of the ratio in one round: what slows the machine slows both."""
        pairs = zip(self.reports[case], self.reports[base], strict=True)
        return median(value(one) / value(other) for one, other in pairs)


def server_us(report):
    return report["server_us"]


def redis_us(report):
    """Of all servers of a cluster."""
    return sum(report["watched_us"])


def p50(report):
    return report["latency_us"]["p50"]


def per_cpu(report):
    """Decisions in a second of the server's CPU."""
    return 1e6 / report["server_us"]


def throughput(report):
    return report["calls_per_second"]


def calls_per_decision(report):
    return report["redis_calls"] / report["calls"]


def calls_per_denied(report):
    return report["redis_calls"] / max(report["over_limit"], 1)
