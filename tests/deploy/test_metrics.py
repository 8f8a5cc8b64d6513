"""Dashboard and alerts: understood by a real Prometheus, tested with promtool, and fed by a live sluicegate."""

import http.client
import json
import pathlib
import re
import time
import urllib.parse

import pytest
import yaml
from conftest import DEPLOY, load, run
from processes import free_port

DASHBOARD = json.loads((DEPLOY / "grafana/sluicegate.json").read_text())
(ALERTS,) = load("prometheus/alerts.yaml")
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
# A histogram's name stands in /metrics with these.
PARTS = re.compile(r"_(bucket|sum|count)$")
SCRAPE_S = 1


def panels():
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def expressions():
    """(where it stands, PromQL) of everything that asks Prometheus."""
    found = [(f"panel {panel['title']}", target["expr"]) for panel in panels() for target in panel["targets"]]
    found += [(f"annotation {note['name']}", note["expr"]) for note in DASHBOARD["annotations"]["list"]]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            found.append((f"variable {variable['name']}", re.match(r"label_values\((.*), \w+\)", variable["definition"])[1]))
    return [(where, concrete(expr)) for where, expr in found] + [
        (f"alert {rule['alert']}", rule["expr"]) for rule in RULES
    ]


def concrete(expr):
    """With Grafana's variables filled in, as Grafana does it for "All"."""
    expr = re.sub(r"\$(job|instance|domain)\b", ".*", expr).replace("$__rate_interval", f"{8 * SCRAPE_S}s")
    assert "$" not in expr, expr
    return expr


def metric_names(expr):
    return {PARTS.sub("", name) for name in re.findall(r"\b(?:sluicegate|ratelimit)_[a-z_]+", expr)}


def test_alerts_are_understood_and_fire(prometheus):
    run(prometheus / "promtool", "check", "rules", DEPLOY / "prometheus/alerts.yaml")
    run(prometheus / "promtool", "test", "rules", DEPLOY / "prometheus/alerts.test.yaml")
    tested = yaml.safe_load((DEPLOY / "prometheus/alerts.test.yaml").read_text())["tests"][0]["alert_rule_test"]
    fired = {test["alertname"] for test in tested if test["exp_alerts"]}
    assert fired == {rule["alert"] for rule in RULES}, "every alert has a test in which it fires"


def test_the_operators_rule_is_the_same():
    (rule,) = load("kubernetes/components/monitoring/prometheus-rule.yaml")
    assert rule["spec"] == ALERTS


def test_dashboard_is_whole():
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                 for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken and max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD))) - {"__rate_interval", "__all"}
    assert used == variables
    (provisioned,) = load("compose/grafana/provisioning/datasources/prometheus.yaml")
    assert provisioned["datasources"][0]["type"] == DASHBOARD["templating"]["list"][0]["query"]


@pytest.fixture(scope="module")
def live(sluicegate, prometheus, tmp_path_factory):
    """A replica that has been through everything, and a Prometheus that scraped it all the while."""
    from processes import Stack

    stack = Stack(tmp_path_factory.mktemp("live"))
    service = Live(stack)
    try:
        service.start(sluicegate, prometheus)
        service.live_through_it()
        yield service
    finally:
        stack.stop()


class Live:
    """Redis, sluicegate and Prometheus."""

    def __init__(self, stack):
        self.stack = stack
        self.ports = {name: free_port() for name in ("redis", "grpc", "http", "admin", "metrics", "prometheus")}
        self.rules = stack.directory / "rules"

    def start(self, sluicegate, prometheus):
        ports = self.ports
        self.rules.mkdir()
        self.write_rules((DEPLOY / "compose/rules/rules.yaml").read_text())
        self.stack.start("redis", ["redis-server", "--port", ports["redis"], "--bind", "127.0.0.1", "--save", ""],
                         [ports["redis"]])
        self.stack.start(
            "sluicegate",
            [sluicegate, "serve", f"--rules={self.rules}", f"--redis-url=redis://127.0.0.1:{ports['redis']}",
             "--on-store-error=local", f"--grpc-addr=127.0.0.1:{ports['grpc']}",
             f"--http-addr=127.0.0.1:{ports['http']}", f"--admin-addr=127.0.0.1:{ports['admin']}",
             f"--prometheus-addr=127.0.0.1:{ports['metrics']}"],
            [ports["http"], ports["metrics"]],
        )
        (config,) = load("compose/prometheus.yaml")
        config["global"] = {"scrape_interval": f"{SCRAPE_S}s", "evaluation_interval": f"{SCRAPE_S}s"}
        config["rule_files"] = [str(DEPLOY / "prometheus/alerts.yaml")]
        config["scrape_configs"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{ports['metrics']}"]
        file = self.stack.directory / "prometheus.yaml"
        file.write_text(yaml.safe_dump(config))
        self.stack.start(
            "prometheus",
            [prometheus / "prometheus", f"--config.file={file}", f"--web.listen-address=127.0.0.1:{ports['prometheus']}",
             f"--storage.tsdb.path={self.stack.directory / 'tsdb'}"],
            [ports["prometheus"]],
        )

    def write_rules(self, text):
        # Renamed over, so that it is never half-read.
        fresh = pathlib.Path(f"{self.rules}.new")
        fresh.write_text(text)
        fresh.rename(self.rules / "rules.yaml")

    def live_through_it(self):
        """Allowed, near the limit, denied, malformed; new rules; Redis gone; a bad file: each long enough to be scraped."""
        self.wait_for("sluicegate_build_info")
        for _ in range(2):
            for _ in range(30):
                self.ask("shop", "alice")
            self.ask("", "alice")
            time.sleep(2 * SCRAPE_S)
        self.write_rules((DEPLOY / "compose/rules/rules.yaml").read_text().replace("20", "21"))
        self.wait_for("changes(sluicegate_config_generation[1m]) > 0")
        self.stack.end("redis")
        for _ in range(10):
            self.ask("shop", "bob")
        self.write_rules("domain: shop\ndescriptors: [{ky: user}]\n")
        self.wait_for("sluicegate_config_last_load_success == 0")
        for _ in range(10):
            self.ask("shop", "bob")
        self.wait_for("sluicegate_failure_mode == 1")
        time.sleep(2 * SCRAPE_S)

    def ask(self, domain, user):
        """One decision, through the JSON endpoint."""
        body = {"domain": domain, "descriptors": [{"entries": [{"key": "user", "value": user}]}]}
        return self.http("POST", self.ports["http"], "/json", json.dumps(body))

    def wait_for(self, expr):
        deadline = time.monotonic() + 30
        while not self.query(expr):
            assert time.monotonic() < deadline, f"Prometheus never saw {expr}\n{self.stack.tail('sluicegate')}"
            time.sleep(0.2)

    def query(self, expr):
        """What Prometheus answers to an instant query."""
        status, text = self.http("GET", self.ports["prometheus"], "/api/v1/query?" + urllib.parse.urlencode({"query": expr}))
        answer = json.loads(text) if status in (200, 400, 422) else {"status": status}
        assert answer["status"] == "success" or status == 503, f"{expr}: {text}"
        return answer.get("data", {}).get("result", [])

    @staticmethod
    def http(method, port, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()


def test_every_metric_exists(live):
    _, text = live.http("GET", live.ports["metrics"], "/metrics")
    exported = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    for where, expr in expressions():
        assert metric_names(expr), f"{where}: no metric in {expr}"
        missing = metric_names(expr) - exported
        assert not missing, f"{where}: {missing} is not in /metrics"


@pytest.mark.parametrize("where", [where for where, _ in expressions() if not where.startswith("alert")])
def test_every_panel_shows_something(live, where):
    for place, expr in expressions():
        if place == where:
            assert live.query(expr), f"{where}: nothing for {expr}"


def test_what_is_ill_is_seen(live):
    """The conditions of the alerts, without the time for which they must hold, on the replica as it is now."""
    for rule in RULES:
        if rule["alert"] in ("SluicegateFailureMode", "SluicegateConfigLoadFailed"):
            assert live.query(rule["expr"]), rule["alert"]
        if rule["alert"] in ("SluicegateConfigSkew", "SluicegateOverloaded", "SluicegateMemoryEvictions"):
            assert not live.query(rule["expr"]), rule["alert"]
