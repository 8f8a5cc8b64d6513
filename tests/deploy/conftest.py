"""Shared by the tests of deploy/: where things are, and the tools that check them."""

import pathlib
import os
import shutil
import subprocess
import sys

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
sys.path[:0] = [str(DEPLOY), str(DEPLOY / "compose"), str(pathlib.Path(__file__).parent)]

from processes import Stack  # noqa: E402


@pytest.fixture(scope="session")
def sluicegate():
    """The binary: SLUICEGATE_BIN, or the debug build."""
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    binary = pathlib.Path(os.environ.get("SLUICEGATE_BIN", target / "debug/sluicegate"))
    assert os.access(binary, os.X_OK), f"{binary} is not there: run `cargo build`"
    return binary


@pytest.fixture(scope="session")
def envoy():
    """Envoy: ENVOY_BIN, or the one that `make setup` installs."""
    binary = pathlib.Path(os.environ.get("ENVOY_BIN", ROOT / ".venv/bin/envoy"))
    assert os.access(binary, os.X_OK), f"{binary} is not there: run `make setup`"
    return binary


@pytest.fixture(scope="session")
def prometheus():
    """The directory with Debian's `prometheus` and `promtool`."""
    unpacked = ROOT / ".cache/prometheus/usr/bin"
    if (unpacked / "promtool").exists():
        return unpacked
    found = shutil.which("promtool")
    assert found and shutil.which("prometheus"), "prometheus is not there: run `make setup`"
    return pathlib.Path(found).parent


@pytest.fixture(scope="session")
def kustomize():
    """Builds a kustomization with the real kustomize (in kubectl); returns its documents."""
    kubectl = shutil.which("kubectl")
    if kubectl is None or "Kustomize Version: v5" not in run(kubectl, "version", "--client", check=False).stdout:
        pytest.skip("no kubectl with kustomize 5 on this machine (Debian 12 packages an older one)")

    def build(path):
        return documents(run(kubectl, "kustomize", DEPLOY / path).stdout)

    return build


@pytest.fixture
def stack(tmp_path):
    """Processes that end with the test."""
    running = Stack(tmp_path)
    yield running
    running.stop()


def run(*command, check=True, **options):
    """Runs a command to its end; its output is in the failure."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **options)
    assert not check or done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def documents(text):
    """The YAML documents of a text that are not empty."""
    return [document for document in yaml.safe_load_all(text) if document]


def load(path):
    """The YAML documents of a file of deploy/."""
    return documents((DEPLOY / path).read_text())
