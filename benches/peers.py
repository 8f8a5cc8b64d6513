"""Other rate limiters under the same load in the same run, where variables name their binaries; docs/peers.md."""

import os
import signal
import time
from pathlib import Path

import admissions
from cases import USER, Case, Row, load, redis_us, server_us, throughput
from processes import Server, free_port

LIMIT = 100_000_000
SEAM_LIMIT, SECOND_US = 100, 1_000_000
FREEZE_S, FREEZE_RATE, IN_TIME_US = 3, 200, 20_000
# name: (the variable with the binary, its storage)
PEERS = {
    "envoyproxy": ("E_BIN", "redis"),
    "limitador-memory": ("LIMITADOR_BIN", "memory"),
    "limitador-redis": ("LIMITADOR_BIN", "redis"),
    "limitador-cached": ("LIMITADOR_BIN", "redis_cached"),
}
LOADS = {"1k": load(), "100k": load(keys=100_000)}


def binary(name):
    variable, _ = PEERS[name]
    path = os.environ.get(variable)
    if path and not Path(path).is_file():
        raise SystemExit(f"{variable}={path}: there is no such file")
    return path


def named():
    """The peers whose binaries are named."""
    return [name for name in PEERS if binary(name)]


def start(bench, name, redis):
    return bench.keep((envoyproxy if name == "envoyproxy" else limitador)(bench, name, redis))


def envoyproxy(bench, name, redis):
    directory = bench.directory / name
    rules = directory / "ratelimit" / "config"
    rules.mkdir(parents=True)
    (rules / "bench.yaml").write_text(
        f"domain: bench\ndescriptors:\n  - key: user\n    rate_limit: {{unit: minute, requests_per_unit: {LIMIT}}}\n"
        f"  - key: seam\n    rate_limit: {{unit: second, requests_per_unit: {SEAM_LIMIT}}}\n"
    )
    grpc, http, debug = free_port(), free_port(), free_port()
    environment = {
        "RUNTIME_ROOT": str(directory), "RUNTIME_SUBDIRECTORY": "ratelimit", "RUNTIME_WATCH_ROOT": "false",
        "REDIS_SOCKET_TYPE": "tcp", "REDIS_URL": f"127.0.0.1:{redis.port}", "USE_STATSD": "false", "LOG_LEVEL": "error",
        "HOST": "127.0.0.1", "GRPC_HOST": "127.0.0.1", "DEBUG_HOST": "127.0.0.1",
        "PORT": str(http), "GRPC_PORT": str(grpc), "DEBUG_PORT": str(debug),
    }
    return Server(name, [binary(name)], bench.directory, grpc, environment)


def limitador(bench, name, redis):
    limits = bench.directory / f"{name}.yaml"
    limits.write_text("".join(
        f'- {{namespace: bench, max_value: {most}, seconds: {seconds}, conditions: [], variables: ["descriptors[0].{key}"]}}\n'
        for key, most, seconds in (("user", LIMIT, 60), ("seam", SEAM_LIMIT, 1))
    ))
    grpc, http = free_port(), free_port()
    _, storage = PEERS[name]
    command = [binary(name), "--rls-ip", "127.0.0.1", "--rls-port", grpc, "--http-ip", "127.0.0.1", "--http-port", http]
    command += [limits, storage, *([] if storage == "memory" else [redis.url])]
    return Server(name, command, bench.directory, grpc)


def cases():
    return [Case(f"{name} {keys}", name, flags, None if PEERS[name][1] == "memory" else "redis")
            for name in named() for keys, flags in LOADS.items()]


def rows(results):
    found = []
    for name in named():
        ours = "memory" if PEERS[name][1] == "memory" else "redis"
        for keys, own in (("1k", f"{ours} 1k"), ("100k", "memory 100k" if ours == "memory" else "redis uniform")):
            peer = f"{name} {keys}"
            cpu, rate = results.ratio(peer, own, server_us), results.ratio(own, peer, throughput)
            target = 5 if name == "envoyproxy" and keys == "100k" else None
            note = f"{results.median(peer, server_us):.1f} µs; {results.median(peer, throughput):,.0f}/s, ours {rate:.1f} ×"
            if ours == "redis":
                note += f"; Redis CPU {results.median(peer, redis_us):.1f} µs, ours {results.median(own, redis_us):.1f}"
            held = None if target is None else cpu >= target
            found.append(Row(f"{name}, {keys} keys", "its server CPU", f"≥ {target} × ours" if target else "", f"{cpu:.1f} × ours", held, note))
    return found


def behaviour(bench, servers, redis):
    """What each admits over the seam of two windows, and what it answers while Redis is frozen; ours first."""
    found = []
    for name, server in servers.items():
        bench.progress(f"the seam of two windows: {name}")
        worst = seam(bench, server)
        found.append(Row(name, "admitted in the worst second", f"≤ {SEAM_LIMIT}", f"{worst}", worst <= SEAM_LIMIT))
    for name, server in servers.items():
        if "memory" not in name:
            bench.progress(f"Redis frozen for {FREEZE_S} s: {name}")
            answered = frozen(bench, server, redis)
            of = FREEZE_S * FREEZE_RATE
            found.append(Row(name, f"allowed within 20 ms, Redis frozen for {FREEZE_S} s", "", f"{answered} of {of}", None))
    return found


def seam(bench, server):
    """One hit, then a burst over the end of the second that began with it: most that one second admitted."""
    file = bench.directory / "seam"
    flags = {"descriptor": "seam=burst", "connections": 1, "streams": 16, "warmup": "0s", "admissions": file}
    # Fixed windows begin with the clock's second, or with the first hit: here with both.
    time.sleep(2 - time.time() % 1)
    bench.load.run([server], **flags, duration="1s", calls=1)
    time.sleep(0.7 - time.time() % 1 if time.time() % 1 < 0.7 else 0)
    bench.load.run([server], **flags, duration="600ms", rate=2000)
    return admissions.worst_window(admissions.read(file), SECOND_US)


def frozen(bench, server, redis):
    file = bench.directory / "frozen"
    flags = {"descriptor": USER, "keys": 1000, "connections": 1, "streams": 256, "warmup": "500ms", "timeout": "5s"}

    def freeze():
        os.kill(redis.pid, signal.SIGSTOP)

    try:
        bench.load.run([server], (), freeze, **flags, rate=FREEZE_RATE, duration=f"{FREEZE_S}s", admissions=file, may_fail=True)
    finally:
        os.kill(redis.pid, signal.SIGCONT)
        time.sleep(2)
    # Those sent in the half second before do not count.
    return sum(answered - sent <= IN_TIME_US for sent, answered in admissions.read(file) if sent >= SECOND_US // 2)
