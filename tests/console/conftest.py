"""Shared by the tests of the admin API and the console: a running server and traffic for it."""

import json
import os
import pathlib
import socket
import subprocess
import time
import urllib.error
import urllib.request

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOKEN = "0123456789abcdef0123456789abcdef"
PATIENCE_S = 30

RULES = """
domain: shop
descriptors:
  - key: user
    rate_limit: { unit: hour, requests_per_unit: 20 }
  - key: path
    value: /login
    rate_limit: { name: login, unit: minute, requests_per_unit: 5 }
    descriptors:
      - key: remote_address
        rate_limit: { unit: minute, requests_per_unit: 3 }
  - key: path
    value: /static
    rate_limit: { unlimited: true }
  - key: partner
    rate_limit: { unit: hour, requests_per_unit: 10 }
    candidate: { unit: minute, requests_per_unit: 2, algorithm: token_bucket }
  - key: tenant
    shadow_mode: true
    rate_limit: { unit: hour, requests_per_unit: 10 }
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A `sluicegate serve` with rules and a token of its own."""

    def __init__(self, directory, *arguments, rules=RULES):
        target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
        self.binary = pathlib.Path(os.environ.get("SLUICEGATE_BIN", target / "debug/sluicegate"))
        assert os.access(self.binary, os.X_OK), f"{self.binary} is not there: run `cargo build`"
        self.rules = directory / "rules.yaml"
        self.rules.write_text(rules)
        self.token_file = directory / "token"
        self.token_file.write_text(TOKEN)
        self.log = directory / "log"
        self.arguments = arguments
        self.grpc, self.http, self.admin = free_port(), free_port(), free_port()
        self.base = f"http://127.0.0.1:{self.admin}"
        self.start()

    def start(self):
        addresses = [
            f"--grpc-addr=127.0.0.1:{self.grpc}",
            f"--http-addr=127.0.0.1:{self.http}",
            f"--admin-addr=127.0.0.1:{self.admin}",
        ]
        command = [self.binary, "serve", f"--rules={self.rules}", f"--admin-token-file={self.token_file}"]
        self.process = subprocess.Popen(
            [*command, *addresses, *self.arguments], stdout=self.log.open("a"), stderr=subprocess.STDOUT
        )
        self.wait(lambda: self.get("/healthcheck") is not None)

    def stop(self):
        self.process.terminate()
        self.process.wait(PATIENCE_S)

    def wait(self, ready):
        """Until `ready` says so; fails with the log."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                if found := ready():
                    return found
            except (OSError, urllib.error.URLError):
                pass
            assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def get(self, path):
        with urllib.request.urlopen(self.base + path, timeout=PATIENCE_S) as answer:
            body = answer.read()
        return json.loads(body) if path.startswith("/api/") else body

    def ask(self, entries, times=1):
        """The rate limit service's answers to these entries."""
        descriptor = {"entries": [{"key": key, "value": value} for key, value in entries]}
        body = json.dumps({"domain": "shop", "descriptors": [descriptor]}).encode()
        for _ in range(times):
            request = urllib.request.Request(f"http://127.0.0.1:{self.http}/json", body)
            try:
                urllib.request.urlopen(request, timeout=PATIENCE_S).read()
            except urllib.error.HTTPError as error:
                assert error.code == 429, error


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path)
    yield server
    server.stop()
