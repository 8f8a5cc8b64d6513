"""The OpenAPI document and the API say the same: schemathesis asks everything that the document allows, and what it does not."""

import pathlib
import subprocess
import sys

from conftest import TOKEN


def test_the_document_describes_every_answer(server, tmp_path):
    server.ask([("user", "mallory")], 25)
    server.ask([("path", "/login"), ("remote_address", "10.0.0.1")], 5)
    config = tmp_path / "schemathesis.toml"
    # A body that is wrong and too large is refused for either reason.
    statuses = ["400", "401", "403", "404", "405", "406", "413", "415", "422", "5xx"]
    config.write_text(f"[checks]\nnegative_data_rejection.expected-statuses = {statuses}\n[generation]\ncodec = 'utf-8'\n")
    command = [
        pathlib.Path(sys.executable).with_name("schemathesis"),
        f"--config-file={config}",
        "run",
        f"{server.base}/api/v1/openapi.json",
        f"--header=Authorization: Bearer {TOKEN}",
        # The stream of events does not end; a test of its own reads it. A call without a token is allowed to read.
        "--exclude-path=/api/v1/events",
        "--exclude-checks=ignored_auth",
        "--max-examples=30",
        "--seed=1",
        "--workers=1",
        "--no-color",
    ]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]
    assert server.process.poll() is None
