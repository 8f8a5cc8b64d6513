"""The real Dockerfile and the real compose.yaml in a container engine: what the READMEs say of them is what is run here.

`make test-containers` makes stand-ins for the base images (scripts/stand-in-images) and runs this. Grafana has none, so
it is left out.
"""

import json
import os
import re
import shutil
import subprocess
import time

import pytest
from conftest import DEPLOY, ROOT, load, run
from drain import Load, over_the_limit

IMAGE = "sluicegate:0.1.0"
PROJECT = "sluicegate-test"
SERVICES = ["redis", "sluicegate-1", "sluicegate-2", "upstream", "envoy", "prometheus"]
REPLICAS = ["sluicegate-1", "sluicegate-2"]
FRONT, ADMIN = ("127.0.0.1", 10000), ("127.0.0.1", 9901)
NOBODY = "65534:65534"
# In compose/envoy.yaml: how long Envoy waits for an answer before it lets the request pass.
FAILS_OPEN = "timeout: 0.25s\n                      failure_mode_deny"


def engine():
    """The docker client that has BuildKit built in or as a plugin, or the reason why there is none."""
    if "CONTAINERS" not in os.environ:
        return None, "builds an image and its base images: make test-containers"
    for client in ("docker", "/usr/bin/docker"):
        if shutil.which(client) and run(client, "info", check=False).returncode == 0:
            builder = run(client, "buildx", "version", check=False)
            old = re.search(r"version (1[89]|2[0-2])\.", run(client, "--version").stdout)
            if builder.returncode == 0 or old:
                return client, ""
    return None, "no container engine with BuildKit answers: docker info, docker buildx version"


DOCKER, WHY_NOT = engine()
pytestmark = pytest.mark.skipif(DOCKER is None, reason=WHY_NOT)


def docker(*arguments, **options):
    return run(DOCKER, *arguments, **options)


@pytest.fixture(scope="module")
def image():
    """The image as the README has it built, but without optimizations, and with this machine's network."""
    environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
    done = docker("build", "--network=host", "--build-arg=PROFILE=dev", "-f", DEPLOY / "docker/Dockerfile", "-t", IMAGE, ROOT,
                  env=environment)
    assert done.returncode == 0
    return json.loads(docker("image", "inspect", IMAGE).stdout)[0]


class Compose:
    """compose.yaml in a project of its own, by `docker compose` or by the older docker-compose.

    Only its timeouts are longer, as in test_compose.py: on a busy machine the failure modes would answer otherwise.
    """

    def __init__(self, directory):
        (project,) = load("compose/compose.yaml")
        if run(DOCKER, "compose", "version", check=False).returncode == 0:
            self.command = [DOCKER, "compose"]
        elif shutil.which("docker-compose"):
            # Version 1 does not know the project's name in the file.
            self.command = ["docker-compose"]
            del project["name"]
        else:
            pytest.skip("no docker compose and no docker-compose on this machine")
        for replica in REPLICAS:
            project["services"][replica]["environment"]["STORE_TIMEOUT"] = "3s"
        envoy = (DEPLOY / "compose/envoy.yaml").read_text()
        patient = envoy.replace(FAILS_OPEN, FAILS_OPEN.replace("0.25s", "5s"))
        assert patient != envoy
        (directory / "envoy.yaml").write_text(patient)
        project["services"]["envoy"]["volumes"] = [f"{directory}/envoy.yaml:/etc/envoy/envoy.yaml:ro"]
        self.file = directory / "compose.json"
        self.file.write_text(json.dumps(project))

    def __call__(self, *arguments, check=True):
        return run(*self.command, "-p", PROJECT, "--project-directory", DEPLOY / "compose", "-f", self.file, *arguments,
                   check=check)

    def container(self, service):
        return self("ps", "-q", service).stdout.strip()

    def state(self, service):
        return json.loads(docker("inspect", self.container(service)).stdout)[0]

    def wait_healthy(self, *services):
        for service in services:
            Load.wait_until(lambda: self.state(service)["State"].get("Health", {}).get("Status") == "healthy", seconds=90)

    def undecided(self):
        """What the replicas' logs say of requests that their failure mode decided."""
        logs = [docker("logs", self.container(replica)) for replica in REPLICAS]
        return [line for log in logs for line in (log.stdout + log.stderr).splitlines() if "store cannot decide" in line]

    def network(self):
        (name,) = self.state("envoy")["NetworkSettings"]["Networks"]
        return name


@pytest.fixture(scope="module")
def compose(image, tmp_path_factory):
    """Everything up and healthy, as `docker compose up` leaves it."""
    directory = tmp_path_factory.mktemp("compose")
    directory.chmod(0o755)
    project = Compose(directory)
    try:
        project("up", "-d", *SERVICES)
        project.wait_healthy(*SERVICES)
        Load.wait_until(both_are_well)
        # What is tested below is two replicas on one Redis, not two failure modes.
        assert statuses("first", 3) == [200] * 3
        assert not project.undecided()
        yield project
    finally:
        project("down", "--timeout", "20", check=False)


def both_are_well():
    return Load.healthy_hosts(ADMIN, "sluicegate") == 2


def statuses(user, number):
    """What `number` requests of one user get, one after the other."""
    found = subprocess.run(
        ["curl", "-s", "-H", f"x-user-id: {user}"] + [
            part for _ in range(number) for part in ("-o", "/dev/null", "-w", "%{http_code} ", "http://127.0.0.1:10000/")],
        capture_output=True, text=True, check=True, timeout=60)
    return [int(status) for status in found.stdout.split()]


def within_limits(traffic):
    """No user was admitted more than 20 times in any 10 seconds, and every request was answered."""
    answers = traffic.answers
    assert {answer.status for answer in answers} <= {200, 429}, {answer.status for answer in answers}
    for user in {answer.user for answer in answers}:
        assert not over_the_limit([answer for answer in answers if answer.user == user], limit=20, window_s=10), user


def test_the_image_is_small_and_locked_down(image):
    config = image["Config"]
    assert config["User"] == NOBODY and config["StopSignal"] == "SIGTERM"
    assert config["Entrypoint"] == ["/usr/local/bin/sluicegate"] and config["Cmd"] == ["serve"]
    no_shell = docker("run", "--rm", "--entrypoint", "/bin/sh", IMAGE, "-c", "true", check=False)
    assert no_shell.returncode == 127, no_shell
    done = docker("run", "--rm", "--read-only", "--network=none", "--entrypoint", "/bin/ratelimit", IMAGE, "--version")
    assert done.stdout.startswith("sluicegate ")
    print(f"\nthe image, of a build without optimizations: {image['Size'] / 1e6:.0f} MB")


@pytest.mark.parametrize("replica", REPLICAS)
def test_the_process_can_do_nothing_but_serve(compose, replica):
    state = compose.state(replica)
    assert state["HostConfig"]["ReadonlyRootfs"] and state["HostConfig"]["CapDrop"] == ["ALL"]
    with open(f"/proc/{state['State']['Pid']}/status", encoding="ascii") as file:
        status = file.read()
    assert re.search(r"^Uid:\t65534\t65534", status, re.MULTILINE) and re.search(r"^CapEff:\t0+$", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\t1$", status, re.MULTILINE)


def test_each_user_is_limited_through_both_replicas(compose):
    """The README's loop of 25: 20 pass, and nobody else is limited by it."""
    got = statuses("you", 25)
    assert got == [200] * 20 + [429] * 5
    assert statuses("someone-else", 3) == [200] * 3


def test_redis_stops_and_starts(compose):
    """Without Redis each replica enforces half of every limit; with it again, nobody got a new quota."""
    with Load(FRONT, users=2, rate_per_user=20) as traffic:
        time.sleep(2)
        compose("stop", "redis")
        time.sleep(4)
        compose("start", "redis")
        compose.wait_healthy("redis")
        time.sleep(2)
    within_limits(traffic)
    assert any(answer.status == 200 for answer in traffic.answers)


def test_rolling_replacement_loses_no_request_and_passes_no_limit(compose):
    with Load(FRONT, users=4, rate_per_user=20) as traffic:
        for replica in REPLICAS:
            time.sleep(1)
            before = compose.container(replica)
            compose("up", "-d", "--no-deps", "--force-recreate", replica)
            assert compose.container(replica) != before
            compose.wait_healthy(replica)
            Load.wait_until(both_are_well, seconds=60)
    # Two failure modes would each admit their half beside what Redis has counted.
    assert not compose.undecided()
    within_limits(traffic)
    assert len(traffic.answers) > 100
    assert Load.counter(ADMIN, "cluster.upstream.ratelimit.failure_mode_allowed") == 0


def test_sigterm_drains_and_ends_in_time(compose):
    container = compose.container("sluicegate-2")
    compose("stop", "sluicegate-2")
    state = json.loads(docker("inspect", container).stdout)[0]["State"]
    assert state["ExitCode"] == 0 and not state["OOMKilled"]
    compose("start", "sluicegate-2")
    compose.wait_healthy("sluicegate-2")
    Load.wait_until(both_are_well, seconds=60)


@pytest.mark.parametrize("cut_off", ["redis", "sluicegate-1"])
def test_a_partition_passes_no_limit(compose, cut_off):
    """The container runs on but reaches nobody, and nobody reaches it; then it is back."""
    container, network = compose.container(cut_off), compose.network()
    with Load(FRONT, users=2, rate_per_user=20) as traffic:
        time.sleep(2)
        docker("network", "disconnect", network, container)
        time.sleep(4)
        docker("network", "connect", "--alias", cut_off, network, container)
        Load.wait_until(both_are_well, seconds=60)
        time.sleep(2)
    within_limits(traffic)
    assert statuses(f"after-{cut_off}", 3) == [200] * 3


def test_envoy_cut_off_from_the_service_comes_back(compose):
    """While Envoy reaches nobody its clients get errors or no answer; once it is back, limits hold again."""
    container, network = compose.container("envoy"), compose.network()
    docker("network", "disconnect", network, container)
    docker("network", "connect", "--alias", "envoy", network, container)
    Load.wait_until(both_are_well, seconds=60)
    assert statuses("after-envoy", 25) == [200] * 20 + [429] * 5
