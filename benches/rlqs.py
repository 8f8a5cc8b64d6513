"""What a request costs where Envoy asks for each one (RLS), and where it enforces leases itself (RLQS), in the same run.

One Envoy has three listeners in front of one upstream (a listener of its own): without a limit, with the rate limit filter, and
with the quota filter. The same load goes to each in turns; CPU is user and system time of Envoy and of the server.
"""

import argparse
import asyncio
import json
import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from cases import Row
from processes import Process, free_port, sluicegate

ROOT = Path(__file__).resolve().parent.parent
ENVOY = Path(os.environ.get("ENVOY_BIN", ROOT / ".venv/bin/envoy"))
RATE, CONNECTIONS, WARM_S = 1_000, 8, 8
KINDS = ("none", "RLS", "RLQS")
RULES = """\
domain: edge
rlqs: { bucket: [name, user] }
descriptors:
  - key: name
    value: per-user
    descriptors: [{ key: user, rate_limit: { requests_per_unit: 100000000, unit: hour } }]
"""
TYPE = "type.googleapis.com/envoy"
HEADER = {"name": "x-user", "typed_config": {"@type": f"{TYPE}.type.matcher.v3.HttpRequestHeaderMatchInput", "header_name": "x-user"}}
ROUTER = {"name": "router", "typed_config": {"@type": f"{TYPE}.extensions.filters.http.router.v3.Router"}}
SERVICE = {"envoy_grpc": {"cluster_name": "sluicegate"}}
DENY = {"fallback_rate_limit": {"blanket_rule": "DENY_ALL"}}
RLS = {"name": "ratelimit", "typed_config": {
    "@type": f"{TYPE}.extensions.filters.http.ratelimit.v3.RateLimit", "domain": "edge", "timeout": "2s", "failure_mode_deny": True,
    "rate_limit_service": {"transport_api_version": "V3", "grpc_service": SERVICE}}}
RLQS = {"name": "quota", "typed_config": {
    "@type": f"{TYPE}.extensions.filters.http.rate_limit_quota.v3.RateLimitQuotaFilterConfig", "domain": "edge", "rlqs_server": SERVICE,
    "bucket_matchers": {"matcher_list": {"matchers": [{
        "predicate": {"single_predicate": {"input": HEADER, "value_match": {"safe_regex": {"google_re2": {}, "regex": ".+"}}}},
        "on_match": {"action": {"name": "quota", "typed_config": {
            "@type": f"{TYPE}.extensions.filters.http.rate_limit_quota.v3.RateLimitQuotaBucketSettings",
            "bucket_id_builder": {"bucket_id_builder": {"name": {"string_value": "per-user"}, "user": {"custom_value": HEADER}}},
            "reporting_interval": "5s", "no_assignment_behavior": DENY,
            "expired_assignment_behavior": {"expired_assignment_behavior_timeout": "60s", **DENY}}}}}]}}}}
ACTIONS = [{"actions": [
    {"generic_key": {"descriptor_key": "name", "descriptor_value": "per-user"}},
    {"request_headers": {"header_name": "x-user", "descriptor_key": "user"}}]}]


def listener(name, port, filters, route, limits=()):
    hosts = [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, **route}], "rate_limits": list(limits)}]
    manager = {"@type": f"{TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": name,
               "http_filters": [*filters, ROUTER], "route_config": {"virtual_hosts": hosts}}
    return {"name": name, "address": address(port), "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}]}


def address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def cluster(name, port, options):
    protocol = {"@type": f"{TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions", "explicit_http_config": options}
    endpoint = {"lb_endpoints": [{"endpoint": {"address": address(port)}}]}
    return {"name": name, "type": "STATIC", "connect_timeout": "1s", "load_assignment": {"cluster_name": name, "endpoints": [endpoint]},
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": protocol}}


def envoy(directory, service):
    """An Envoy with the three listeners; it and their ports by kind."""

    ports, upstream = {kind: free_port() for kind in KINDS}, free_port()
    to = {"route": {"cluster": "upstream"}}
    filters = {"none": [], "RLS": [RLS], "RLQS": [RLQS]}
    listeners = [listener(kind, ports[kind], filters[kind], to, ACTIONS if kind == "RLS" else ()) for kind in KINDS]
    answer = {"direct_response": {"status": 200, "body": {"inline_string": "ok\n"}}}
    listeners.append(listener("upstream", upstream, [], answer))
    clusters = [cluster("upstream", upstream, {"http_protocol_options": {}}), cluster("sluicegate", service, {"http2_protocol_options": {}})]
    file = Path(directory) / "rlqs-envoy.json"
    file.write_text(json.dumps({"static_resources": {"listeners": listeners, "clusters": clusters}}))
    command = [ENVOY, "-c", file, "--use-dynamic-base-id", "--concurrency", "1", "--log-level", "error"]
    process = Process("rlqs-envoy", command, directory)
    process.wait_for(ports["RLQS"])
    return process, ports


def cpu_s(process):
    """User and system time so far."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def one(port, until, times, statuses):
    """Requests on one connection, evenly, until then."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    due = time.monotonic()
    while due < until:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        started = time.monotonic()
        writer.write(b"GET / HTTP/1.1\r\nhost: bench\r\nx-user: anna\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
        await reader.readexactly(length)
        times.append(time.monotonic() - started)
        statuses.append(head[9:12])
        due += CONNECTIONS / RATE
    writer.close()


def load(port, seconds):
    """Latencies and statuses of the load on a port."""
    times, statuses = [], []

    async def all_of_it():
        until = time.monotonic() + seconds
        await asyncio.gather(*(one(port, until, times, statuses) for _ in range(CONNECTIONS)))

    asyncio.run(all_of_it())
    return times, statuses


def measure(binary, directory, stack, rounds, seconds):
    """For each kind: p50 and p99 in µs, CPU of Envoy and of the server in µs a request; medians of the rounds."""
    rules = Path(directory) / "rlqs-rules"
    rules.mkdir()
    (rules / "rules.yaml").write_text(RULES)
    server = sluicegate(binary, directory, "rlqs", rules, "--store", "memory")
    stack.callback(server.stop)
    proxy, ports = envoy(directory, server.port)
    stack.callback(proxy.stop)
    # Counters in memory are leased from six seconds after they began, and the first lease is a small one.
    load(ports["RLQS"], WARM_S)
    found = {kind: [] for kind in KINDS}
    for number in range(rounds):
        for kind in KINDS if number % 2 == 0 else reversed(KINDS):
            before = cpu_s(proxy), cpu_s(server)
            times, statuses = load(ports[kind], seconds)
            spent = [1e6 * (after - start) / len(times) for after, start in zip((cpu_s(proxy), cpu_s(server)), before)]
            denied = sum(status != b"200" for status in statuses)
            if denied > len(statuses) / 100:
                raise RuntimeError(f"{kind}: {denied} of {len(statuses)} requests did not pass: see {proxy.log}")
            times.sort()
            found[kind].append((1e6 * times[len(times) // 2], 1e6 * times[len(times) * 99 // 100], *spent))
    return {kind: [median(column) for column in zip(*rows)] for kind, rows in found.items()}


def rows(bench):
    bench.progress("RLQS beside RLS at Envoy")
    found = measure(bench.binary, bench.directory, bench.stack, bench.args.rounds, max(10, bench.args.seconds))
    none, rls, rlqs = (found[kind] for kind in KINDS)
    note = f"{RATE:,}/s, {CONNECTIONS} connections, one worker; without a limit: "
    shown = [("request at Envoy, p50", 0, 1.0), ("request at Envoy, p99", 1, 1.0), ("CPU of Envoy a request", 2, 1.0), ("CPU of the server a request", 3, 0.1)]
    return [
        Row("RLQS beside RLS", what, f"≤ {most} × RLS", f"{rlqs[at]:.1f} µs, RLS {rls[at]:.1f} µs", rlqs[at] <= most * rls[at],
            f"{note}{none[at]:.1f} µs")
        for what, at, most in shown
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", type=Path, required=True, help="the sluicegate binary, built in release")
    parser.add_argument("--rounds", type=int, default=3, help="times that each is measured")
    parser.add_argument("--seconds", type=float, default=10, help="length of one measurement")
    args = parser.parse_args()
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="sluicegate-rlqs-"))
        found = measure(args.binary, directory, stack, args.rounds, args.seconds)
    print("µs           p50      p99    Envoy   server (CPU a request)")
    for kind, row in found.items():
        print(f"{kind:<8}" + "".join(f"{value:9.1f}" for value in row))


if __name__ == "__main__":
    main()
