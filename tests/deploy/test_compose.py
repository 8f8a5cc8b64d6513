"""compose.yaml: valid, complete, and at work: the same processes started natively from its own settings."""

import json
import re
import sys
import time

import native
import pytest
from conftest import DEPLOY, ROOT, load, run
from drain import over_the_limit, Load

(COMPOSE,) = load("compose/compose.yaml")
SERVICES = COMPOSE["services"]


def test_file_fits_the_specification():
    checker = ROOT / ".venv/bin/check-jsonschema"
    run(checker, "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose/compose.yaml")


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_pinned_checked_and_ordered(name):
    service = SERVICES[name]
    tag = service["image"].partition(":")[2]
    assert re.search(r"\d+\.\d+\.\d+", tag), f"{service['image']} is not pinned by version"
    assert service["healthcheck"]["test"][0] == "CMD"
    for before, how in service.get("depends_on", {}).items():
        assert before in SERVICES and how == {"condition": "service_healthy"}
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:"), "a demo listens on loopback only"
    for mount in service.get("volumes", []):
        outside, _, mode = mount.split(":")
        assert (DEPLOY / "compose" / outside).exists() and mode == "ro"


def test_image_is_what_the_dockerfile_and_cargo_say():
    version = re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]
    build = SERVICES["sluicegate-1"]["build"]
    assert SERVICES["sluicegate-1"]["image"] == f"sluicegate:{version}"
    assert (DEPLOY / "compose" / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).is_file()
    assert f"ARG VERSION={version}" in (ROOT / build["dockerfile"]).read_text()
    (chart,) = load("helm/sluicegate/Chart.yaml")
    (base,) = load("kubernetes/base/kustomization.yaml")
    assert chart["appVersion"] == base["images"][0]["newTag"] == version


@pytest.fixture
def project(tmp_path, sluicegate, envoy, prometheus):
    binaries = {"sluicegate": str(sluicegate), "envoy": str(envoy), "python3": sys.executable,
                "prometheus": str(prometheus / "prometheus")}
    started = native.Project(tmp_path, binaries, profiles=["load"], private=True)
    yield started
    started.stack.stop()


def be_patient(project, tmp_path):
    """Longer timeouts, nothing else. On a busy machine the failure mode would answer for Redis, and what it admits is
    counted again if Redis has counted the late call too: more would pass than the limit, or less."""
    for replica in ("sluicegate-1", "sluicegate-2"):
        spec = project.services[replica].spec
        spec["environment"] = {**spec["environment"], "STORE_TIMEOUT": "3s"}
    envoy = (DEPLOY / "compose/envoy.yaml").read_text()
    assert "timeout: 0.25s\n                      failure_mode_deny" in envoy
    patient = tmp_path / "envoy.yaml"
    patient.write_text(envoy.replace("timeout: 0.25s\n                      failure_mode_deny",
                                     "timeout: 5s\n                      failure_mode_deny"))
    project.services["envoy"].spec["volumes"] = [f"{patient}:/etc/envoy/envoy.yaml:ro"]


def test_the_demo_runs_from_the_files_settings(project, tmp_path):
    """All of it but Grafana: three users, of whom the abusive one is limited to 20 in any 10 seconds."""
    be_patient(project, tmp_path)
    assert project.skipped == ["grafana"]
    project.up()
    assert set(project.stack.running) == set(SERVICES) - {"grafana"}
    time.sleep(12)
    report = project.stack.log("load", "out").read_text().strip().split("\n\n")[-1]
    rows = {line.split()[0]: [int(number) for number in line.split()[1:]] for line in report.splitlines()[1:]}
    for user in ("alice", "bob"):
        sent, ok, limited, other = rows[user]
        assert sent == ok > 5 and limited == other == 0, report
    sent, ok, limited, other = rows["mallory"]
    # Two windows begin while it runs.
    assert 20 <= ok <= 40 and limited == sent - ok > 80 and other == 0, report
    # Prometheus found both replicas by the names in its file.
    targets = json.loads(Load.get((project.resolve("prometheus"), 9090), "/api/v1/targets")[1])["data"]["activeTargets"]
    assert [target["health"] for target in targets] == ["up", "up"], targets
    rules = json.loads(Load.get((project.resolve("prometheus"), 9090), "/api/v1/rules")[1])["data"]["groups"]
    assert rules[0]["name"] == "sluicegate"
    # Both replicas were asked.
    for replica in ("sluicegate-1", "sluicegate-2"):
        metrics = Load.get((project.resolve(replica), 9090), "/metrics")[1]
        asked = re.search(r'sluicegate_requests_total\{code="ok",service="rls"\} (\d+)', metrics)
        assert int(asked[1]) > 5, metrics


def test_rolling_restart_loses_no_request_and_passes_no_limit(project, tmp_path):
    """Both replicas are replaced one after the other, as `docker compose restart` does, under load through Envoy."""
    be_patient(project, tmp_path)
    for name in project.order():
        if name not in ("load", "prometheus"):
            project.start(name)
    front = (project.resolve("envoy"), 10000)
    admin = (project.resolve("envoy"), 9901)
    with Load(front, users=8, rate_per_user=25) as load:
        for replica in ("sluicegate-1", "sluicegate-2"):
            time.sleep(1.5)
            assert project.stack.end(replica) == 0
            project.start(replica)
            # The next one is touched when Envoy's health check has found this one well, as a rollout does.
            Load.wait_until(lambda: Load.healthy_hosts(admin, "sluicegate") == 2)
        time.sleep(1.5)
    answers = load.answers
    assert len(answers) > 500
    assert {answer.status for answer in answers} == {200, 429}
    for user in {answer.user for answer in answers}:
        mine = [answer for answer in answers if answer.user == user]
        assert not over_the_limit(mine, limit=20, window_s=10), user
        assert sum(answer.status == 200 for answer in mine) >= 20
    # Envoy never had to let a request pass, or refuse it, without an answer.
    for stat in ("error", "failure_mode_allowed"):
        assert Load.counter(admin, f"cluster.upstream.ratelimit.{stat}") == 0, stat
    assert Load.counter(admin, "cluster.upstream.ratelimit.over_limit") > 0
