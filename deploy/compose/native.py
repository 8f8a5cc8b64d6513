#!/usr/bin/env python3
"""Starts what compose.yaml describes as ordinary processes: for machines without a container engine.

Commands, environment, mounted files, order, health checks and published ports are taken from compose.yaml; only what a
container gives is translated: every service gets a loopback address of its own, so that ports stay as they are, and a
service's name in a command or a config file becomes that address. `make demo-compose` builds the binary and runs this.
"""

import argparse
import os
import pathlib
import random
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import yaml

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "deploy"))

from processes import ProcessError, Stack, end_like_ctrl_c, ignore_ends, listens  # noqa: E402

# The first part of an image's name -> what runs here in its place. None: there is no package of it to run.
PROGRAMS = {
    "redis": "redis-server",
    "sluicegate": "sluicegate",
    "envoyproxy/envoy": "envoy",
    "python": "python3",
    "prom/prometheus": "prometheus",
    "grafana/grafana": None,
}
# Where a program listens unless it is told otherwise: settings that keep it on its own address.
SLUICEGATE_PORTS = {"GRPC_ADDR": 8081, "HTTP_ADDR": 8080, "ADMIN_ADDR": 6070}


class Service:
    """One service of compose.yaml, translated."""

    def __init__(self, name, spec, project):
        self.name, self.spec, self.project = name, spec, project
        self.program = PROGRAMS[spec["image"].rsplit(":", 1)[0]]
        self.address = None

    @property
    def published(self):
        """(host address, host port, container port) of every published port."""
        parsed = []
        for port in self.spec.get("ports", []):
            host, outside, inside = port.split(":")
            parsed.append((host, int(outside), int(inside)))
        return parsed

    def ports(self):
        """The container's ports that others connect to."""
        if self.program == "redis-server":
            return [6379]
        if self.program == "sluicegate":
            return [*SLUICEGATE_PORTS.values(), 9090]
        if "--port" in self.spec.get("command", []):
            return [int(self.spec["command"][self.spec["command"].index("--port") + 1])]
        return [inside for _, _, inside in self.published]

    def command(self):
        """What to run, with everything of the container's world translated."""
        command = [self.translate(part) for part in self.spec["command"]]
        program = self.project.binary(self.program)
        if self.program == "sluicegate":
            return [program, *command]
        if self.program == "redis-server":
            return [program, *command[1:], "--bind", self.address]
        if self.program == "prometheus":
            return [program, *command, f"--web.listen-address={self.address}:9090",
                    f"--storage.tsdb.path={self.project.directory / 'prometheus'}"]
        if self.program == "envoy":
            # Several Envoys of one user would share memory by this number.
            return [program, *command[1:], "--use-dynamic-base-id"]
        return [program, *command[1:], *(["--host", self.address] if "--port" in command else [])]

    def environment(self):
        """The container's environment, and the settings that keep the process on its own address."""
        own = {name: self.translate(value) for name, value in self.spec.get("environment", {}).items()}
        if self.program == "sluicegate":
            own |= {name: f"{self.address}:{port}" for name, port in SLUICEGATE_PORTS.items()}
        return own

    def translate(self, text):
        """A command's part: paths to where the files are here, names to addresses."""
        for inside, outside in self.mounts():
            if text.startswith(inside) or f"={inside}" in text:
                text = text.replace(inside, str(self.project.translated(outside, self)))
        text = text.replace("0.0.0.0", self.address)
        return re.sub(r"(?<=//)[a-z0-9-]+(?=:)", lambda name: self.project.resolve(name[0]), text)

    def mounts(self):
        """(path in the container, path here) of every mount, the longest first."""
        pairs = []
        for mount in self.spec.get("volumes", []):
            outside, inside, _ = mount.split(":")
            pairs.append((inside, (HERE / outside).resolve()))
        return sorted(pairs, key=lambda pair: -len(pair[0]))

    def healthy(self):
        """Runs the container's health check."""
        kind, *test = self.spec["healthcheck"]["test"]
        assert kind == "CMD", "every health check of compose.yaml is an exec form"
        test = [self.translate(part.replace("127.0.0.1", self.address)) for part in test]
        if test[0] == "redis-cli":
            test[1:1] = ["-h", self.address]
        elif test[0] == "wget":
            # Not on every machine; the images bring their own.
            return answers(test[-1])
        else:
            test[0] = self.project.binary(pathlib.Path(test[0]).name)
            test += ["--host", self.address] if "--port" in test else []
        environment = {**os.environ, **self.environment()}
        return subprocess.run(test, env=environment, capture_output=True, timeout=10, check=False).returncode == 0


def answers(url):
    """Whether a URL is answered with a 2xx."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status < 300
    except OSError:
        return False


class Project:
    """The whole of compose.yaml."""

    def __init__(self, directory, binaries, profiles=(), private=False):
        self.directory = pathlib.Path(directory)
        self.binaries = binaries
        spec = yaml.safe_load((HERE / "compose.yaml").read_text())
        self.services = {
            name: Service(name, service, self)
            for name, service in spec["services"].items()
            if set(service.get("profiles", [])) <= set(profiles)
        }
        self.skipped = [name for name, service in self.services.items() if not self.binary(service.program, True)]
        for name in self.skipped:
            del self.services[name]
        self.assign_addresses(private)
        self.stack = Stack(self.directory)

    def assign_addresses(self, private):
        """Published services are reached where compose.yaml publishes them, the others on a network of their own."""
        network = f"127.{random.randint(16, 250)}.{random.randint(1, 250)}."
        for number, service in enumerate(self.services.values(), 2):
            service.address = f"{network}{number}"
            if service.published and not private:
                hosts = {host for host, outside, inside in service.published if outside == inside}
                assert len(hosts) == 1, f"{service.name}: one host address, and the same ports outside as inside"
                service.address = hosts.pop()

    def resolve(self, name):
        """A service's address; any other name stays as it is."""
        return self.services[name].address if name in self.services else name

    def binary(self, program, optional=False):
        """Where a program is; `None` if it may be missing and is."""
        found = self.binaries.get(program) or (program and shutil.which(program))
        if not found and not optional:
            raise ProcessError(f"{program} is not there: run `make setup`")
        return found

    def translated(self, path, service):
        """A mounted file: a copy in which names are addresses, if it names any; else the file itself."""
        if path.suffix != ".yaml" or not path.is_file():
            return path
        text = path.read_text().replace("0.0.0.0", service.address)
        for name, other in self.services.items():
            # As an address of its own, or before a port.
            text = re.sub(rf"(?<=address: ){name}(?=,)|(?<=[\"' /]){name}(?=:\d)", other.address, text)
        for inside, outside in service.mounts():
            if outside != path:
                text = text.replace(inside, str(outside))
        copy = self.directory / f"{service.name}.{path.name}"
        copy.write_text(text)
        return copy

    def order(self):
        """Services so that each comes after those that it depends on."""
        done = []

        def visit(name):
            for before in self.services[name].spec.get("depends_on", {}):
                if before in self.services:
                    visit(before)
            if name not in done:
                done.append(name)

        for name in self.services:
            visit(name)
        return done

    def start(self, name):
        """Starts one service and waits until its health check passes."""
        service = self.services[name]
        taken = [port for port in service.ports() if listens((service.address, port))]
        if taken:
            raise ProcessError(
                f"{service.address}:{taken[0]} ({name}) is in use. Stop what listens there, or use addresses that nobody"
                " else has: make demo-compose ADDRESSES=private"
            )
        return self.stack.start(name, service.command(), service.healthy, service.environment())

    def up(self):
        """Starts everything."""
        for name in self.order():
            self.start(name)
            print(f"{name:<14}{self.services[name].address:<16}{shlex.join(self.spec_command(name))}", flush=True)
        for name in self.skipped:
            print(f"{name:<14}not started: there is no program for it on this machine", flush=True)

    def spec_command(self, name):
        """As compose.yaml has it."""
        return self.services[name].spec["command"]


def wait(project, seconds):
    """Shows what the load generator prints until the time is over (0: until Ctrl-C)."""
    deadline = time.monotonic() + seconds if seconds else float("inf")
    with project.stack.log("load", "out").open() as report:
        while time.monotonic() < deadline:
            project.stack.check()
            sys.stdout.write(report.read())
            sys.stdout.flush()
            time.sleep(0.5)


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=str(ROOT / "target/debug/sluicegate"), help="the sluicegate to run")
    parser.add_argument("--envoy", default=str(ROOT / ".venv/bin/envoy"), help="the Envoy to run")
    parser.add_argument("--prometheus", default=str(ROOT / ".cache/prometheus/usr/bin/prometheus"),
                        help="the Prometheus to run, if it is there")
    parser.add_argument("--addresses", choices=("published", "private"), default="published",
                        help="where compose.yaml publishes ports, or on addresses that nobody else uses")
    parser.add_argument("--seconds", type=float, default=0, help="end after this time (0: at Ctrl-C)")
    return parser.parse_args()


def main():
    options = parse_options()
    end_like_ctrl_c()
    binaries = {"sluicegate": options.binary, "envoy": options.envoy, "python3": sys.executable}
    if os.access(options.prometheus, os.X_OK):
        binaries["prometheus"] = options.prometheus
    with tempfile.TemporaryDirectory(prefix="sluicegate-compose-") as directory:
        project = Project(directory, binaries, profiles=["load"], private=options.addresses == "private")
        try:
            project.up()
            envoy = project.resolve("envoy")
            print(f"\nNow you:\n  curl -i -H 'x-user-id: you' http://{envoy}:10000/\n"
                  f"  curl http://{project.resolve('sluicegate-1')}:9090/metrics\n"
                  "Change deploy/compose/rules/rules.yaml and watch: no restart. Logs are in "
                  f"{directory}.\nCtrl-C stops everything. What the three users get:\n", flush=True)
            wait(project, options.seconds)
            return 0
        except KeyboardInterrupt:
            print("\nstopping")
            return 0
        except (ProcessError, socket.error) as error:
            print(f"demo-compose: {error}", file=sys.stderr)
            return 1
        finally:
            ignore_ends()
            project.stack.stop()


if __name__ == "__main__":
    sys.exit(main())
