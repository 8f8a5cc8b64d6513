"""How soon a process serves, and what it keeps while it does nothing."""

import resource
import socket
import time

from cases import Row
from processes import sluicegate

RULES = 1_000
CONNECTIONS = 10_000
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)


def rows(bench):
    bench.progress("start to ready")
    rules = bench.directory / "thousand"
    rules.mkdir()
    text = ["domain: thousand", "descriptors:"]
    text += [f"  - {{key: path, value: path-{n}, rate_limit: {{unit: minute, requests_per_unit: 100}}}}" for n in range(RULES)]
    (rules / "rules.yaml").write_text("\n".join(text) + "\n")
    times = []
    for number in range(5):
        started = time.monotonic()
        server = sluicegate(bench.binary, bench.directory, f"start-{number}", rules, poll_s=0.001)
        times.append((time.monotonic() - started) * 1000)
        if number < 4:
            server.stop()
    bench.keep(server)
    took = sorted(times)[len(times) // 2]
    # What was needed to start is given back after a while.
    time.sleep(2)
    idle = server.rss_bytes() / 1e6
    bench.progress(f"{CONNECTIONS} connections")
    full = with_connections(server) / 1e6
    return [
        Row(f"{RULES:,} rules", "start to ready (/healthcheck)", "≤ 150 ms", f"{took:.0f} ms", took <= 150),
        Row(f"{RULES:,} rules", "resident memory, idle", "≤ 20 MB", f"{idle:.1f} MB", idle <= 20),
        Row(f"{CONNECTIONS:,} connections", "resident memory, idle", "≤ 40 MB", f"{full:.1f} MB", full <= 40),
    ]


def with_connections(server):
    """Resident memory while so many HTTP/2 connections are open."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    sockets = []
    try:
        for _ in range(CONNECTIONS):
            connection = socket.create_connection(("127.0.0.1", server.port))
            connection.sendall(PREFACE)
            sockets.append(connection)
        for connection in sockets:
            # The server's own SETTINGS: it has taken this one.
            connection.settimeout(20)
            if not connection.recv(9):
                raise RuntimeError("a connection was closed")
        return server.rss_bytes()
    finally:
        for connection in sockets:
            connection.close()
