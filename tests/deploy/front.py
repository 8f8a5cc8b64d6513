"""A real Envoy in front of an upstream, with sluicegate behind it, and requests through it."""

import collections
import http.client
import json

import bootstraps
import yaml
from conftest import DEPLOY, run
from processes import free_port


class Front:
    """Starts the three and sends requests."""

    def __init__(self, stack, envoy, sluicegate):
        self.stack, self.envoy, self.sluicegate = stack, envoy, sluicegate
        self.ports = {name: free_port() for name in ("front", "admin", "upstream", "grpc", "http", "sg_admin")}

    def grpc(self):
        return ("127.0.0.1", self.ports["grpc"])

    def start_service(self, *args):
        """sluicegate on addresses of its own."""
        ports = self.ports
        self.stack.start(
            "sluicegate",
            [self.sluicegate, "serve", *args, f"--grpc-addr=127.0.0.1:{ports['grpc']}",
             f"--http-addr=127.0.0.1:{ports['http']}", f"--admin-addr=127.0.0.1:{ports['sg_admin']}"],
            [ports["grpc"], ports["http"]],
        )

    def start_envoy(self, config):
        """Lets Envoy check the configuration, then run it."""
        upstream = self.ports["upstream"]
        self.stack.start(
            "upstream", ["python3", DEPLOY / "compose/app/upstream.py", "--host", "127.0.0.1", "--port", upstream],
            [upstream],
        )
        file = self.stack.directory / "envoy.yaml"
        file.write_text(yaml.safe_dump(config))
        run(self.envoy, "--mode", "validate", "-c", file)
        file.write_text(yaml.safe_dump(bootstraps.patient(config)))
        self.stack.start(
            "envoy", [self.envoy, "-c", file, "--use-dynamic-base-id", "--concurrency", "1"],
            lambda: self.admin("/ready").strip() == "LIVE",
        )

    def admin(self, path):
        """An answer of Envoy's admin port, or nothing while it does not answer."""
        try:
            return self.get(path, port=self.ports["admin"])[2]
        except OSError:
            return ""

    def get(self, path="/", port=None, **headers):
        """(status, headers, body) of one request."""
        connection = http.client.HTTPConnection("127.0.0.1", port or self.ports["front"], timeout=10)
        try:
            connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read().decode()
        finally:
            connection.close()

    def statuses(self, number, path="/", **headers):
        """How often each status came back."""
        return collections.Counter(self.get(path, **headers)[0] for _ in range(number))

    def stat(self, name):
        """A counter or gauge of Envoy's."""
        stats = json.loads(self.admin(f"/stats?format=json&filter=^{name}$"))["stats"]
        return stats[0]["value"]
