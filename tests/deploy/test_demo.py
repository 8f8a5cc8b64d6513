"""`make demo`: every tour that ends by itself, run to its end; an answer that it does not expect fails it."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
ENVOY = os.environ.get("ENVOY_BIN", ROOT / ".venv/bin/envoy")


@pytest.mark.parametrize(("mode", "store"), [("ratelimit", "memory"), ("llm", "memory"), ("llm", "redis")])
def test_a_tour_goes_as_it_says(mode, store):
    command = [
        sys.executable, ROOT / "deploy/demo/demo.py", "--binary", TARGET / "debug/sluicegate", "--envoy", ENVOY,
        "--mode", mode, "--store", store, "--ports", "free", "--once",
    ]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert ran.returncode == 0, ran.stdout + ran.stderr
