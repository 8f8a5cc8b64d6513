#!/usr/bin/env python3
"""Shows sluicegate at work: starts it with a real Envoy in front of an upstream, sends requests, prints the answers.

`make demo` builds the binary and runs this. Python's standard library only.
"""

import argparse
import http.client
import json
import os
import pathlib
import secrets
import socket
import sys
import tempfile
import textwrap
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "deploy"))

from llm import tour  # noqa: E402
from rlqs import tour as rlqs_tour  # noqa: E402
from processes import ProcessError, Stack, end_like_ctrl_c, free_port, ignore_ends  # noqa: E402

# What envoy.yaml and the command line name: (port, what listens there).
PORTS = {
    "front": (10000, "Envoy's front door"),
    "front_ext_authz": (10002, "Envoy's front door by ext_authz"),
    "upstream": (10001, "the upstream"),
    "envoy_admin": (9901, "Envoy's admin"),
    "grpc": (8081, "sluicegate's gRPC"),
    "http": (8080, "sluicegate's HTTP"),
    "admin": (6070, "sluicegate's admin"),
}

# How Envoy asks: its front door, and what decides what a request is counted by.
MODES = {
    "ratelimit": ("front", "the rate limit filter: Envoy's routes say what to count"),
    "ext_authz": ("front_ext_authz", "ext_authz: the rules file says what to count, no route is touched"),
    "rlqs": ("front", "nobody: two Envoys enforce quotas themselves (RLQS)"),
    "llm": ("front", "the rate limit filter: tokens are held when a request comes and settled when its response is done"),
}

# By mode: rules and Envoy's configuration.
FILES = {
    None: ("deploy/demo/rules.yaml", "envoy.yaml"),
    "llm": ("deploy/demo/llm/rules.yaml", "deploy/demo/llm/envoy.yaml"),
    "rlqs": ("deploy/rlqs/rules.yaml", "deploy/rlqs/envoy.yaml"),
}


def choose_ports(kind):
    if kind == "free":
        return {name: free_port() for name in PORTS}
    taken = []
    for port, what in PORTS.values():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                taken.append(f"  {port} ({what}): {error.strerror}")
    if taken:
        raise ProcessError(
            "these ports cannot be used:\n" + "\n".join(taken)
            + "\nStop what listens there, or let the demo choose others: make demo PORTS=free"
        )
    return {name: port for name, (port, _) in PORTS.items()}


def start_everything(stack, options, ports):
    """Starts the store, the service and Envoy."""
    # For changes by the admin API: `sluicegate reset`, and the console.
    token = stack.directory / "admin-token"
    token.write_text(secrets.token_hex(16))
    rules, envoy_config = FILES.get(options.mode, FILES[None])
    serve = [
        options.binary, "serve", "--rules", str(ROOT / rules), "--store", options.store,
        "--grpc-addr", f"127.0.0.1:{ports['grpc']}", "--http-addr", f"127.0.0.1:{ports['http']}",
        "--admin-addr", f"127.0.0.1:{ports['admin']}", "--admin-token-file", str(token),
    ]
    if options.store == "redis":
        port = free_port()
        stack.start("redis", ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", ""], [port])
        print(f"redis       127.0.0.1:{port}   look inside: redis-cli -p {port} --scan")
        # Just under the timeout in envoy.yaml: a laptop that is busy with something else should not fail the tour.
        serve += ["--redis-url", f"redis://127.0.0.1:{port}", "--store-timeout", "150ms"]
    stack.start("sluicegate", serve, [ports["grpc"], ports["http"], ports["admin"]])
    print(f"sluicegate  127.0.0.1:{ports['grpc']}   counters in {options.store}, rules from {rules}")
    if options.mode == "rlqs":
        return start_two_envoys(stack, options, ports, ROOT / envoy_config)
    listeners = ["front", "front_ext_authz", "envoy_admin"]
    if options.mode == "llm":
        model = [sys.executable, str(ROOT / "deploy/demo/llm/model_server.py"), "--port", str(ports["upstream"])]
        stack.start("model", model, [ports["upstream"]])
    else:
        listeners.append("upstream")

    config = (ROOT / envoy_config).read_text()
    for name, (default, _) in PORTS.items():
        config = config.replace(f"port_value: {default} ", f"port_value: {ports[name]} ")
    file = stack.directory / "envoy.yaml"
    file.write_text(config)
    stack.start(
        "envoy", [options.envoy, "-c", str(file), "--use-dynamic-base-id", "--file-flush-interval-msec", "100"],
        [ports[name] for name in listeners],
    )
    door, how = MODES[options.mode]
    print(f"envoy       127.0.0.1:{ports[door]}   in front of the upstream on 127.0.0.1:{ports['upstream']}")
    print(f"            asks by {how}")


def start_two_envoys(stack, options, ports, envoy_config):
    """Starts two Envoys that enforce quotas themselves; the second takes the ports that this mode does not need."""
    doors = (("front", "envoy_admin", "upstream"), ("front_ext_authz", None, None))
    for number, (front, admin, upstream) in enumerate(doors, 1):
        config = envoy_config.read_text()
        for default, port in (
            (10003, ports[front]), (8081, ports["grpc"]), (9903, ports[admin] if admin else free_port()),
            (10004, ports[upstream] if upstream else free_port()),
        ):
            config = config.replace(f"port_value: {default} ", f"port_value: {port} ")
        file = stack.directory / f"envoy-{number}.yaml"
        file.write_text(config)
        # The first one's name: `keep_serving` looks for it.
        name = "envoy" if number == 1 else f"envoy-{number}"
        stack.start(name, [options.envoy, "-c", str(file), "--use-dynamic-base-id"], [ports[front]])
        print(f"{name:<11} 127.0.0.1:{ports[front]}")
    print(f"            ask {MODES['rlqs'][1]}")


class Driver:
    """Sends requests through Envoy and prints what comes back."""

    def __init__(self, port):
        self.port = port
        self.surprises = 0

    def send(self, number, expected, **headers):
        """Sends one request; returns its answer's headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("GET", "/", headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        body = answer.read().decode(errors="replace")
        connection.close()
        shown = [
            f"{name}: {answer.headers[name]}"
            for name in ("x-ratelimit-remaining", "x-ratelimit-reset", "retry-after") if name in answer.headers
        ]
        print(f"  {number:>3}  {answer.status} {answer.reason:<18} {'  '.join(shown)}")
        if answer.status != 200:
            print(textwrap.indent(f"x-ratelimit-limit: {answer.headers.get('x-ratelimit-limit')}", " " * 7))
            print(textwrap.indent(pretty(body), " " * 7))
        if answer.status != expected:
            self.surprises += 1
            print(f"       ^^^ expected {expected}")
        return answer.headers

    def run(self):
        print("\nAt most 10 requests in any 10 seconds from one address. Ten pass, the eleventh does not:\n")
        for number in range(1, 11):
            self.send(number, 200)
        denied = self.send(11, 429)

        wait_s = int(denied.get("retry-after") or 1)
        print(f"\nIt said when the same request would pass, so let us wait {wait_s} s and ask again:\n")
        time.sleep(wait_s)
        passed = self.send(12, 200)

        # Envoy cuts fractions of a second off.
        wait_s = int(passed.get("x-ratelimit-reset") or 0) + 1
        print(f"\nAnd {wait_s} s later the whole quota is back (x-ratelimit-reset). A second limit: the API key `trial`\n"
              "may send 3 in any 10 seconds. Its denial names that limit:\n")
        time.sleep(wait_s)
        for number in range(13, 16):
            self.send(number, 200, x_api_key="trial")
        self.send(16, 429, x_api_key="trial")

        print("\nThe denied request took nothing from the address's own limit, so without the key it goes on:\n")
        self.send(17, 200)


def pretty(body):
    try:
        return json.dumps(json.loads(body), indent=2)
    except ValueError:
        return body


def keep_serving(stack, ports, mode, binary):
    """Shows Envoy's access log until Ctrl-C."""
    front = f"http://127.0.0.1:{ports[MODES[mode][0]]}/"
    text = tour.now_you(ports) if mode == "llm" else rlqs_tour.now_you(front) if mode == "rlqs" else f"""
        Now you:
          curl -i {front}
          curl -i -H 'x-api-key: trial' {front}
          for i in $(seq 12); do curl -s -o /dev/null -w '%{{http_code}} ' {front}; done; echo
          {binary} top --by hits --admin http://127.0.0.1:{ports['admin']}
        Change deploy/demo/rules.yaml and ask again: no restart.
        """
    print(textwrap.dedent(text))
    print(f"The console: http://127.0.0.1:{ports['admin']}/console/")
    print(f"  (its token, for resets: {(stack.directory / 'admin-token').read_text()})")
    print(f"Logs are in {stack.directory}. Ctrl-C stops everything. Envoy's access log:\n")
    with stack.log("envoy", "out").open() as access_log:
        access_log.seek(0, os.SEEK_END)
        while True:
            line = access_log.readline()
            if line:
                print(f"  {line}", end="", flush=True)
            else:
                stack.check()
                time.sleep(0.2)


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", default=str(ROOT / "target/debug/sluicegate"), help="the sluicegate to run")
    parser.add_argument("--envoy", default=str(ROOT / ".venv/bin/envoy"), help="the Envoy to run")
    parser.add_argument("--store", choices=("memory", "redis"), default="memory", help="where counters live")
    parser.add_argument("--mode", choices=MODES, default="ratelimit", help="how Envoy asks the service")
    parser.add_argument("--ports", choices=("default", "free"), default="default",
                        help="those of envoy.yaml, or any that are free")
    parser.add_argument("--once", action="store_true", help="exit after the tour: 0 if every answer was as expected")
    options = parser.parse_args()
    for path, cure in ((options.binary, "cargo build"), (options.envoy, "make setup")):
        if not os.access(path, os.X_OK):
            parser.error(f"{path} is not there: run `{cure}`")
    return options


def main():
    options = parse_options()
    end_like_ctrl_c()
    with tempfile.TemporaryDirectory(prefix="sluicegate-demo-") as directory:
        stack = Stack(pathlib.Path(directory))
        try:
            ports = choose_ports(options.ports)
            start_everything(stack, options, ports)
            if options.mode == "llm":
                driver = tour.Tour(ports["front"], ports["front_ext_authz"], ports["admin"])
            elif options.mode == "rlqs":
                driver = rlqs_tour.Tour([ports["front"], ports["front_ext_authz"]], ports["admin"])
            else:
                driver = Driver(ports[MODES[options.mode][0]])
            driver.run()
            if options.once:
                return 1 if driver.surprises else 0
            keep_serving(stack, ports, options.mode, options.binary)
        except KeyboardInterrupt:
            print("\nstopping")
            return 130 if options.once else 0
        except ProcessError as error:
            print(f"demo: {error}", file=sys.stderr)
            return 1
        finally:
            ignore_ends()
            stack.stop()


if __name__ == "__main__":
    sys.exit(main())
