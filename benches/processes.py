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


def wait_for_port(port, process, what):
    """Returns when something listens on the port; raises when the process ends or time runs out."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"{what} ended with code {process.returncode} before it served")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise RuntimeError(f"{what} does not listen on port {port} after {PATIENCE_S} s")


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

    def wait_for(self, port):
        try:
            wait_for_port(port, self.child, self.what)
        except RuntimeError as error:
            raise RuntimeError(f"{error}\n{self.log.read_text(errors='replace')[-2000:]}") from None

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

    def __init__(self, directory, number=0):
        self.port = free_port()
        command = ["redis-server", "--port", self.port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        super().__init__(f"redis-{number}", [*command, "--dir", directory], directory)
        self.wait_for(self.port)

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

    def used_memory(self):
        return int(self.info("memory")["used_memory"])

    def keys(self):
        return int(self.command("DBSIZE"))


class Server(Process):
    """Any server with the gRPC interface."""

    def __init__(self, what, command, directory, port, env=None):
        super().__init__(what, command, directory, env)
        self.port = port
        self.wait_for(port)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"


def noop(binary, directory, shape):
    port = free_port()
    command = [binary, "noop", "--grpc-addr", f"127.0.0.1:{port}", "--shape", shape]
    return Server(f"noop-{shape}", command, directory, port)


def sluicegate(binary, directory, name, rules, *flags):
    ports = [free_port() for _ in range(3)]
    command = [binary, "serve", "--rules", rules, "--log-level", "warn", *flags]
    for flag, port in zip(("--grpc-addr", "--http-addr", "--admin-addr"), ports):
        command += [flag, f"127.0.0.1:{port}"]
    return Server(name, command, directory, ports[0])


class Load:
    """Runs the load generator."""

    def __init__(self, binary):
        self.binary = binary

    def run(self, servers, watch=(), before=None, **flags):
        """Loads the servers; returns the report. `before` is called when the measurement begins."""
        command = [str(self.binary), "load", "--json"]
        for server in servers:
            command += ["--target", server.url]
        for process in [*servers, *watch]:
            command += ["--pid", str(process.pid)]
        for name, value in flags.items():
            command += [f"--{name.replace('_', '-')}", str(value)]
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
        if failed > report["calls"] / 1000:
            raise RuntimeError(f"{failed} calls failed: {report['errors']}\n{' '.join(command)}")
        report["server_us"] = sum(entry["us_per_call"] for entry in report["cpu"][: len(servers)])
        report["watched_us"] = [entry["us_per_call"] for entry in report["cpu"][len(servers) :]]
        return report
