"""The manifests: strictly against Kubernetes' schemas, the chart against them, and numbers that must fit together."""

import re

import helm_python
import kubernetes_validate
import pytest
import yaml
from conftest import DEPLOY, load, run

CHART = DEPLOY / "helm/sluicegate"
# A kustomization, and the chart's values that must give the same.
VARIANTS = {
    "kubernetes": {},
    "kubernetes/overlays/try-redis": {"redis": {"try": True}},
    "kubernetes/overlays/external-redis-tls": {
        "redis": {
            "url": "rediss://sluicegate:change-me@redis.example.com:6380/0",
            "port": 6380,
            "cidrs": ["0.0.0.0/0"],
            "tls": {"caSecret": "sluicegate-redis-tls"},
        }
    },
    "kubernetes/overlays/monitored": {"monitoring": {"enabled": True}},
}
# The oldest and the newest Kubernetes that the manifests are for.
VERSIONS = ["1.30", "1.37"]


def render(values):
    """The chart as Helm renders it, without the notes."""
    with helm_python.Chart.load(str(CHART)) as chart:
        chart.validate_schema(values)
        rendered = chart.render(values, name="sluicegate", namespace="sluicegate")
    return [
        document for name, text in rendered.items() if name.endswith(".yaml") for document in yaml.safe_load_all(text)
        if document
    ]


def by_name(docs):
    index = {(doc["kind"], doc["metadata"]["name"]): doc for doc in docs}
    assert len(index) == len(docs), "two documents with one name"
    return index


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", VARIANTS)
def test_kustomizations_fit_the_schemas(kustomize, path, version):
    check_schemas(kustomize(path), version)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS)
def test_chart_fits_the_schemas(values, version):
    check_schemas(render(values), version)


def check_schemas(docs, version):
    core = [doc for doc in docs if "coreos.com" not in doc["apiVersion"]]
    assert len(core) >= 9
    for doc in core:
        kubernetes_validate.validate(doc, version, strict=True)


def test_the_validator_is_strict():
    deployment = load("kubernetes/base/deployment.yaml")[0]
    deployment["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readinesProbe"):
        kubernetes_validate.validate(deployment, VERSIONS[0], strict=True)


@pytest.mark.parametrize("path", VARIANTS)
def test_chart_equals_kustomization(kustomize, path):
    ours, charts = by_name(kustomize(path)), by_name(render(VARIANTS[path]))
    # Helm makes the namespace itself (--create-namespace).
    del ours["Namespace", "sluicegate"]
    assert charts.keys() == ours.keys()
    for name, doc in charts.items():
        assert without_helms_own(doc) == without_helms_own(ours[name]), name


def without_helms_own(doc):
    """Without labels that only Helm sets, the checksum that rolls pods, and comments and blank lines in texts."""
    for label in ("app.kubernetes.io/managed-by", "app.kubernetes.io/version", "helm.sh/chart"):
        doc["metadata"]["labels"].pop(label, None)
    if doc["kind"] == "Deployment":
        doc["spec"]["template"]["metadata"].pop("annotations", None)
        args = doc["spec"]["template"]["spec"]["containers"][0]["args"]
        args.sort()
    if doc["kind"] == "ConfigMap":
        doc["data"] = {name: yaml.safe_load(text) for name, text in doc["data"].items()}
    return doc


def test_chart_is_clean_and_refuses_wrong_values():
    assert not helm_python.lint(str(CHART))["errors"]
    wrong = [
        {"redis": {"url": "http://redis"}},
        {"onStoreError": "maybe"},
        {"autoscaling": {"maxReplica": 3}},
        {"extraArgs": ["serve"]},
        {"rules": {"rules.json": "{}"}},
    ]
    with helm_python.Chart.load(str(CHART)) as chart:
        for values in wrong:
            with pytest.raises(helm_python.HelmValuesError):
                chart.validate_schema(values)


def test_chart_passes_on_what_it_is_given():
    values = {
        "redis": {"existingSecret": "mine"},
        "existingRulesConfigMap": "my-rules",
        "autoscaling": {"enabled": False},
        "replicas": 3,
        "extraArgs": ["--default-algorithm=fixed_window"],
        "extraEnv": [{"name": "LOG_LEVEL", "value": "debug"}],
        "drainDelaySeconds": 1,
        "drainTimeoutSeconds": 2,
    }
    docs = by_name(render(values))
    assert ("Secret", "sluicegate-redis") not in docs and ("ConfigMap", "sluicegate-rules") not in docs
    assert ("HorizontalPodAutoscaler", "sluicegate") not in docs
    deployment = docs["Deployment", "sluicegate"]["spec"]
    assert deployment["replicas"] == 3
    pod = deployment["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == 13
    assert pod["volumes"][0]["configMap"]["name"] == "my-rules"
    container = pod["containers"][0]
    assert "--default-algorithm=fixed_window" in container["args"]
    assert container["env"][0]["valueFrom"]["secretKeyRef"]["name"] == "mine"
    assert container["env"][1] == {"name": "LOG_LEVEL", "value": "debug"}


def test_drain_fits_in_the_grace_period():
    pod = load("kubernetes/base/deployment.yaml")[0]["spec"]["template"]["spec"]
    flags = dict(re.match(r"--([a-z-]+)=(.*)", arg).groups() for arg in pod["containers"][0]["args"][1:])
    drain_s = int(flags["drain-delay"].rstrip("s")) + int(flags["drain-timeout"].rstrip("s"))
    assert drain_s + 5 <= pod["terminationGracePeriodSeconds"]


def test_the_binary_takes_the_flags_and_rules(sluicegate, tmp_path):
    """Starts what the Deployment would: same arguments, but ports of its own; and checks its rules."""
    container = load("kubernetes/base/deployment.yaml")[0]["spec"]["template"]["spec"]["containers"][0]
    args = [arg for arg in container["args"] if not arg.startswith("--rules")]
    # An address that cannot be listened on: the flags are all understood before that is noticed.
    done = run(sluicegate, *args, "--redis-tls-ca=/nowhere/ca.crt", f"--rules={DEPLOY / 'kubernetes/base/rules.yaml'}",
               "--grpc-addr=192.0.2.1:8081", check=False, timeout=20,
               env={"REDIS_URL": "redis://127.0.0.1:1/0", "PATH": "/usr/bin"})
    assert done.returncode != 0 and "192.0.2.1:8081" in done.stdout + done.stderr, (done.stdout, done.stderr)
    run(sluicegate, "check", DEPLOY / "kubernetes/base/rules.yaml")
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    (tmp_path / "rules.yaml").write_text(values["rules"]["rules.yaml"])
    run(sluicegate, "check", tmp_path)
