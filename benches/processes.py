"""Processes that the bench starts, watches and stops; nothing else is touched."""

import json
import os
import re
import socket
import subprocess
import tempfile
import time
from pathlib import Path

PATIENCE_S = 20


def free_port():
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_open(port):
    """Whether something listens on the port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def is_healthy(port):
    """Whether `/healthcheck` answers 200. A connection may be accepted before anything is served: then this waits."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        connection.sendall(b"GET /healthcheck HTTP/1.0\r\n\r\n")
        return b" 200 " in connection.makefile("rb").readline()


class Process:
    """A child with a log file; stopped by its own handle."""

    def __init__(self, what, command, directory, env=None):
        self.log = Path(directory) / f"{what}.log"
        with open(self.log, "wb") as log:
            self.child = subprocess.Popen(
                [str(part) for part in command],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **(env or {})},
            )
        self.what = what

    @property
    def pid(self):
        return self.child.pid

    def wait_for(self, port, poll_s=0.02, is_ready=is_open):
        """Returns when the port is ready; raises when the process ends or time runs out."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            if self.child.poll() is not None:
                raise self.failure(f"ended with code {self.child.returncode} before it served")
            if is_ready(port):
                return
            time.sleep(poll_s)
        raise self.failure(f"is not ready on port {port} after {PATIENCE_S} s")

    def failure(self, problem):
        return RuntimeError(f"{self.what} {problem}\n{self.log.read_text(errors='replace')[-2000:]}")

    def rss_bytes(self):
        """Resident memory."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def stop(self):
        if self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()


class Redis(Process):
    """A Redis of its own: nothing is saved, nothing is evicted."""

    def __init__(self, directory, number=0, *more, tls=None):
        """With certificates it listens on a second port, over TLS."""
        self.port = free_port()
        command = ["redis-server", "--port", self.port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        if tls:
            port = free_port()
            self.tls_url = f"rediss://127.0.0.1:{port}"
            more = (*more, "--tls-port", port, *tls.redis())
        super().__init__(f"redis-{number}", [*command, "--dir", directory, *more], directory)
        self.wait_for(self.port)

    @property
    def processes(self):
        return [self]

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}"

    def command(self, *words):
        """One command, in the protocol's simplest form; the reply's bytes."""
        frame = b"*%d\r\n" % len(words)
        for word in words:
            word = str(word).encode()
            frame += b"$%d\r\n%s\r\n" % (len(word), word)
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S) as connection:
            connection.sendall(frame)
            reader = connection.makefile("rb")
            head = reader.readline().rstrip(b"\r\n")
            if head[:1] == b"-":
                raise RuntimeError(f"redis: {head.decode()}")
            return reader.read(int(head[1:])) if head[:1] == b"$" else head[1:]

    def info(self, section):
        lines = self.command("INFO", section).decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def script_calls(self):
        """Calls of scripts since the start: each is one decision, or one batch of them."""
        stats = self.info("commandstats")
        names = ("evalsha", "eval", "fcall")
        found = (re.match(r"calls=(\d+)", stats.get(f"cmdstat_{name}", "")) for name in names)
        return sum(int(match.group(1)) for match in found if match)

    def fill(self, keys, name):
        """So many keys with names of `name` bytes, a value of one byte, and a time to live."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S) as connection:
            reader = connection.makefile("rb")
            for start in range(0, keys, 1000):
                lines = (b"SET %0*d x PX 3600000\r\n" % (name, key) for key in range(start, start + 1000))
                connection.sendall(b"".join(lines))
                for _ in range(1000):
                    reader.readline()

    def round_trip_us(self):
        """The median of a PING on one connection, one after the other."""
        command = ["redis-benchmark", "-p", str(self.port), "-c", "1", "-n", "20000", "-t", "ping_mbulk", "--csv"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        head, line = (row.replace('"', "").split(",") for row in done.stdout.splitlines()[-2:])
        return float(line[head.index("p50_latency_ms")]) * 1000

    def used_memory(self):
        return int(self.info("memory")["used_memory"])

    def keys(self):
        return int(self.command("DBSIZE"))


class RedisCluster:
    """So many masters on loopback, each with its part of the slots, and no replicas."""

    def __init__(self, directory, masters):
        directory = Path(directory) / f"cluster-of-{masters}"
        self.processes = []
        for number in range(masters):
            place = directory / str(number)
            place.mkdir(parents=True)
            self.processes.append(Redis(place, f"{number}-of-{masters}", "--cluster-enabled", "yes", "--cluster-port", free_port()))
        nodes = [f"127.0.0.1:{node.port}" for node in self.processes]
        self.url = f"redis-cluster://{','.join(nodes)}"
        try:
            self.join(nodes)
        except Exception:
            self.stop()
            raise

    def join(self, nodes):
        command = ["redis-cli", "--cluster", "create", *nodes, "--cluster-replicas", "0", "--cluster-yes"]
        subprocess.run(command, capture_output=True, text=True, check=True)
        end = time.monotonic() + PATIENCE_S
        while any(b"cluster_state:ok" not in node.command("CLUSTER", "INFO") for node in self.processes):
            if time.monotonic() > end:
                raise RuntimeError(f"a cluster of {len(nodes)} does not agree on its slots")
            time.sleep(0.1)

    def script_calls(self):
        return sum(node.script_calls() for node in self.processes)

    def stop(self):
        for node in self.processes:
            node.stop()


class Server(Process):
    """Any server with the gRPC interface."""

    def __init__(self, what, command, directory, port, env=None, scheme="http", poll_s=0.02):
        super().__init__(what, command, directory, env)
        self.port = port
        self.url = f"{scheme}://127.0.0.1:{port}"
        self.wait_for(port, poll_s)


def noop(binary, directory, shape):
    port = free_port()
    command = [binary, "noop", "--grpc-addr", f"127.0.0.1:{port}", "--shape", shape]
    return Server(f"noop-{shape}", command, directory, port)


def sluicegate(binary, directory, name, rules, *flags, poll_s=0.02, admin=None):
    ports = [free_port(), free_port(), admin or free_port()]
    command = [binary, "serve", "--rules", rules, "--log-level", "warn", *flags]
    for flag, port in zip(("--grpc-addr", "--http-addr", "--admin-addr"), ports):
        command += [flag, f"127.0.0.1:{port}"]
    scheme = "https" if "--grpc-tls-cert" in flags else "http"
    server = Server(name, command, directory, ports[0], scheme=scheme, poll_s=poll_s)
    server.wait_for(ports[1], poll_s)
    server.wait_for(ports[1], poll_s, is_healthy)
    return server


class Load:
    """Runs the load generator."""

    def __init__(self, binary):
        self.binary = binary

    def run(self, servers, watch=(), before=None, may_fail=False, **flags):
        """Loads the servers; returns the report. `before` is called when the measurement begins."""
        command = [str(self.binary), "load", "--json"]
        for server in servers:
            command += ["--target", server.url]
        for process in [*servers, *watch]:
            command += ["--pid", str(process.pid)]
        for name, value in flags.items():
            command.append(f"--{name.replace('_', '-')}")
            if value is not True:
                command.append(str(value))
        with tempfile.TemporaryFile("w+") as out:
            child = subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE, text=True)
            errors = []
            for line in child.stderr:
                if line.startswith("measuring"):
                    if before:
                        before()
                else:
                    errors.append(line)
            if child.wait() != 0:
                raise RuntimeError(f"{' '.join(command)}\n{''.join(errors)}")
            out.seek(0)
            report = json.load(out)
        failed = sum(report["errors"].values())
        if failed > report["calls"] / 1000 and not may_fail:
            raise RuntimeError(f"{failed} calls failed: {report['errors']}\n{' '.join(command)}")
        report["server_us"] = sum(entry["us_per_call"] for entry in report["cpu"][: len(servers)])
        report["watched_us"] = [entry["us_per_call"] for entry in report["cpu"][len(servers) :]]
        return report
