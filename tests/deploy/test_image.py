"""The Dockerfile: linted, its steps run where that is possible, and its result run as the image would be."""

import fnmatch
import os
import pathlib
import re
import shutil
import time
import urllib.request

import pytest
from conftest import DEPLOY, ROOT, load, run
from processes import free_port

DOCKERFILE = DEPLOY / "docker/Dockerfile"
# What gcr.io/distroless/cc-debian12 has of shared libraries that a Rust program may ask for.
LIBRARIES = {"ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1", "libc.so.6", "libm.so.6", "libgcc_s.so.1"}
NOBODY = 65534


def instructions():
    """(stage, instruction, arguments) in order; continued lines joined, comments dropped."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    stage, found = -1, []
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip():
            name, _, arguments = line.strip().partition(" ")
            stage += name == "FROM"
            found.append((stage, name, re.sub(r"\s+", " ", arguments).strip()))
    return found


def of(stage, name):
    return [arguments for number, found, arguments in instructions() if (number, found) == (stage, name)]


def test_dockerfile_is_clean():
    run(ROOT / ".venv/bin/hadolint", "--failure-threshold", "style", DOCKERFILE)


def test_the_image_is_locked_down_and_labelled():
    assert of(1, "USER") == ["65534:65534"]
    (check,) = of(1, "HEALTHCHECK")
    assert check.endswith('CMD ["/usr/local/bin/sluicegate", "health"]')
    assert of(1, "ENTRYPOINT") == ['["/usr/local/bin/sluicegate"]']
    assert "distroless" in of(1, "FROM")[0]
    for label in ("title", "description", "licenses", "version", "revision", "created"):
        assert f"org.opencontainers.image.{label}=" in of(1, "LABEL")[0]


def allowed_by_dockerignore(path):
    """Whether the build sees a path: last matching pattern wins, as BuildKit has it."""
    seen = True
    for line in (DEPLOY / "docker/Dockerfile.dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            pattern = line.lstrip("!")
            if any(fnmatch.fnmatch(part, pattern) for part in [path, path.split("/")[0]]):
                seen = line.startswith("!")
    return seen


def test_the_context_has_what_is_copied_and_what_is_compiled_in():
    copied = [source for copy in of(0, "COPY") for source in copy.split()[:-1]]
    assert copied == ["Cargo.toml", "Cargo.lock", "build.rs", "proto", "src"]
    for source in copied:
        assert (ROOT / source).exists() and allowed_by_dockerignore(source)
    assert not allowed_by_dockerignore("target") and not allowed_by_dockerignore(".git")
    # Files that are compiled in must be copied, too.
    for file in [ROOT / "build.rs", *(ROOT / "src").rglob("*.rs")]:
        for included in re.findall(r'include_(?:str|bytes)!\(\s*"([^"]+)"', file.read_text()):
            target = (file.parent / included).resolve()
            assert target.exists() and target.is_relative_to(ROOT / "src") or target.is_relative_to(ROOT / "proto"), (
                f"{file} includes {included}, which the image's build does not have")


def clean_tree(place, with_program):
    """The build stage's /src after its COPYs, and the empty program that stands in before them."""
    shutil.copy(ROOT / "Cargo.toml", place)
    shutil.copy(ROOT / "Cargo.lock", place)
    if with_program:
        shutil.copy(ROOT / "build.rs", place)
        for directory in ("proto", "src"):
            shutil.copytree(ROOT / directory, place / directory, dirs_exist_ok=True)


def test_cargo_accepts_both_trees(tmp_path):
    """Cargo.toml must not name a file that is not there while dependencies are built.

    `cargo tree` wants this platform's packages alone, which the build has fetched; `cargo metadata` wants those of
    every platform in the lock file.
    """
    (empty,) = [step for step in of(0, "RUN") if step.startswith("mkdir src")]
    clean_tree(tmp_path, with_program=False)
    run("sh", "-ec", empty.split(" && cargo ")[0], cwd=tmp_path)
    run("cargo", "tree", "--locked", "--edges=no-dev", "--depth=0", cwd=tmp_path)
    clean_tree(tmp_path, with_program=True)
    run("cargo", "tree", "--locked", "--edges=no-dev", "--depth=0", cwd=tmp_path)


@pytest.mark.skipif("IMAGE_STEPS" not in os.environ, reason="compiles everything from scratch: make image-steps")
def test_build_steps_in_a_clean_tree(tmp_path):
    """Both cargo steps as the Dockerfile has them; the second must not build a dependency again."""
    machine = os.uname().machine
    paths = {"/triple": tmp_path / "triple", "/tools": tmp_path / "tools", "/out": tmp_path / "out"}
    paths["/triple"].write_text(f"{machine}-unknown-linux-gnu\n")
    paths["/tools"].write_text(f"{machine}-linux-gnu\n")
    source = tmp_path / "src"
    source.mkdir()
    environment = {**os.environ, "PROFILE": os.environ["IMAGE_STEPS"], "TARGETARCH": "amd64"}
    environment.pop("CARGO_TARGET_DIR", None)
    dependencies, program = [step for step in of(0, "RUN") if "cargo build" in step]
    logs = []
    for with_program, step in ((False, dependencies), (True, program)):
        clean_tree(source, with_program)
        for inside, outside in paths.items():
            step = re.sub(rf"(?<![\w/]){inside}\b", str(outside), step)
        logs.append(run("sh", "-ec", step, cwd=source, env=environment).stderr)
    assert "Compiling tokio " in logs[0] and "Compiling tonic " in logs[0]
    built = re.findall(r"Compiling (\S+)", logs[1])
    assert set(built) == {"sluicegate"}, "the second step builds nothing but the program"
    binary = paths["/out"] / "usr/local/bin/sluicegate"
    link = paths["/out"] / "bin/ratelimit"
    assert os.readlink(link) == "/usr/local/bin/sluicegate"
    print(f"\nthe binary: {binary.stat().st_size / 1e6:.1f} MB")
    run(binary, "--version")


@pytest.fixture
def root(sluicegate, tmp_path):
    """A root file system like the image's: the binary, its libraries, the link, and nothing else."""
    if os.geteuid() != 0:
        pytest.skip("chroot needs root")
    root = tmp_path / "root"
    for directory in ("usr/local/bin", "bin", "etc/sluicegate/rules"):
        (root / directory).mkdir(parents=True)
    shutil.copy(sluicegate, root / "usr/local/bin/sluicegate")
    (root / "bin/ratelimit").symlink_to("/usr/local/bin/sluicegate")
    shutil.copy(DEPLOY / "kubernetes/base/rules.yaml", root / "etc/sluicegate/rules")
    for library in re.findall(r"(/\S+\.so\S*)", run("ldd", sluicegate).stdout):
        assert pathlib.Path(library).name in LIBRARIES, f"{library} is not in the base image"
        (root / library.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, root / library.lstrip("/"))
    run("chmod", "-R", "go-w", root)
    # The chain above it, which pytest makes for root alone.
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)
    return root


def inside(root, *command):
    return ["chroot", f"--userspec={NOBODY}:{NOBODY}", root, *command]


def test_it_runs_as_nobody_where_nothing_is_writable(root, stack):
    grpc, http, admin = free_port(), free_port(), free_port()
    address = {"HTTP_ADDR": f"127.0.0.1:{http}"}
    health = inside(root, "/usr/local/bin/sluicegate", "health")
    stopped = run(*health, check=False, env={**os.environ, **address})
    assert stopped.returncode == 1 and "does not answer" in stopped.stderr
    process = stack.start(
        "sluicegate",
        inside(root, "/usr/local/bin/sluicegate", "serve", "--rules=/etc/sluicegate/rules",
               f"--grpc-addr=127.0.0.1:{grpc}", f"--admin-addr=127.0.0.1:{admin}", "--drain-delay=6s"),
        [http, grpc], address,
    )
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    assert re.search(rf"^Uid:\t{NOBODY}\t{NOBODY}", status, re.MULTILINE)
    assert run(*health, env={**os.environ, **address}).stdout.strip() == "healthy"
    # While it drains it says so, and the health check fails.
    process.terminate()
    deadline = time.monotonic() + 5
    while (draining := run(*health, check=False, env={**os.environ, **address})).returncode == 0:
        assert time.monotonic() < deadline, "it does not say that it drains"
        time.sleep(0.05)
    assert draining.returncode == 1 and "draining" in draining.stderr, draining
    assert process.wait(30) == 0


def test_it_starts_as_ratelimit(root, stack):
    """As manifests of envoyproxy/ratelimit start it: by that name, settings in variables, the rules' place, too."""
    grpc, http, debug = free_port(), free_port(), free_port()
    rules = root / "data/ratelimit/config"
    rules.mkdir(parents=True)
    shutil.copy(DEPLOY / "kubernetes/base/rules.yaml", rules / "config.yaml")
    environment = {
        "RUNTIME_ROOT": "/data", "RUNTIME_SUBDIRECTORY": "ratelimit", "RUNTIME_WATCH_ROOT": "false",
        "RUNTIME_IGNOREDOTFILES": "true", "USE_STATSD": "false", "LOG_LEVEL": "debug", "BACKEND_TYPE": "redis",
        "REDIS_SOCKET_TYPE": "tcp", "REDIS_URL": f"127.0.0.1:{free_port()}",
        "HOST": "127.0.0.1", "PORT": str(http), "GRPC_HOST": "127.0.0.1", "GRPC_PORT": str(grpc),
        "DEBUG_HOST": "127.0.0.1", "DEBUG_PORT": str(debug),
    }
    # What envoy-gateway/values.yaml adds to Envoy Gateway's own.
    (gateway,) = load("envoy-gateway/values.yaml")
    container = gateway["config"]["envoyGateway"]["provider"]["kubernetes"]["rateLimitDeployment"]["container"]
    environment |= {variable["name"]: variable["value"] for variable in container["env"]}
    assert container["securityContext"]["runAsUser"] == NOBODY
    stack.start("ratelimit", inside(root, "/bin/ratelimit"), [http, grpc, debug], environment)
    with urllib.request.urlopen(f"http://127.0.0.1:{debug}/rlconfig", timeout=5) as answer:
        assert "example.user" in answer.read().decode()
    # The same variables tell the health check where to ask. It is healthy without Redis: ON_STORE_ERROR answers.
    done = run(*inside(root, "/usr/local/bin/sluicegate", "health"), env={**os.environ, **environment})
    assert done.stdout.strip() == "healthy"
