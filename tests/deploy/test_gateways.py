"""The gateways' resources: against their CRDs, and at work: what a gateway makes of them runs in a real Envoy."""

import json

import bootstraps
import pytest
import yaml
from conftest import DEPLOY, ROOT, load, run
from front import Front

# Their CRDs come as packages. Those of Emissary and kgateway do not: see the READMEs there.
WITH_CRDS = [
    "istio/rls-gateway.yaml",
    "istio/rls-sidecar.yaml",
    "istio/ext-authz-gateway.yaml",
    "istio/ext-authz-sidecar.yaml",
    "envoy-gateway/backend-traffic-policy.yaml",
    "envoy-gateway/security-policy.yaml",
    "contour/contour.yaml",
    "kubernetes/components/monitoring/service-monitor.yaml",
    "kubernetes/components/monitoring/prometheus-rule.yaml",
]
CRDS = ROOT / "tests/deploy/crds"
RULES = DEPLOY / "kubernetes/base/rules.yaml"


crds_installed = pytest.mark.skipif(
    not (CRDS / "node_modules/installed.json").exists(),
    reason="npm's packages of tests/deploy/crds are not there: `scripts/setup deploy` where npm's registry is reached")


def check_crds(resources):
    node = ROOT / ".venv/bin/node"
    return run(node, "check.mjs", check=False, cwd=CRDS, input=json.dumps(resources))


@crds_installed
@pytest.mark.parametrize("path", WITH_CRDS)
def test_resources_fit_their_crds(path):
    resources = [doc for doc in load(path) if "." in doc["apiVersion"]]
    done = check_crds(resources)
    assert resources and done.returncode == 0, done.stderr


@crds_installed
def test_the_crd_check_is_strict():
    (resource,) = load("istio/rls-gateway.yaml")
    resource["spec"]["configPatches"][0]["aplyTo"] = "CLUSTER"
    resource["spec"]["configPatches"][1]["applyTo"] = "VIRTUALHOST"
    done = check_crds([resource])
    assert done.returncode == 1 and "aplyTo" in done.stderr and "allowed values" in done.stderr, done.stderr


@pytest.fixture
def front(stack, envoy, sluicegate):
    return Front(stack, envoy, sluicegate)


def limits_each_user(front, path="/"):
    """20 requests in any 10 seconds for each user, as kubernetes/base/rules.yaml has it."""
    got = front.statuses(26, path, x_user_id="alice")
    assert got == {200: 20, 429: 6}
    assert front.statuses(3, path, x_user_id="bob") == {200: 3}


@pytest.mark.parametrize("path", ["istio/rls-gateway.yaml", "istio/rls-sidecar.yaml"])
def test_envoy_filter_limits(front, path):
    (resource,) = load(path)
    filters, host = bootstraps.of_envoy_filter(resource)
    service = "outbound|8081||sluicegate.sluicegate.svc.cluster.local"
    front.start_service(f"--rules={RULES}")
    front.start_envoy(bootstraps.bootstrap(front.ports, filters, {service: front.grpc()}, host))
    limits_each_user(front)
    status, headers, body = front.get(x_user_id="alice")
    assert status == 429 and int(headers["retry-after"]) >= 1
    assert headers["x-ratelimit-limit"].startswith("20, ") and headers["x-ratelimit-remaining"] == "0"
    assert "per-user" in body
    # Fails open, as the resource says.
    front.stack.end("sluicegate")
    assert front.statuses(3, x_user_id="alice") == {200: 3}


def test_backend_traffic_policy_limits(front, tmp_path):
    policy, route = load("envoy-gateway/backend-traffic-policy.yaml")
    filters, per_route, tree, service = bootstraps.of_backend_traffic_policy(policy, route)
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(tree))
    front.start_service(f"--rules={tmp_path / 'rules.yaml'}")
    front.start_envoy(bootstraps.bootstrap(front.ports, filters, {service: front.grpc()}, route=per_route))
    limits_each_user(front)
    # Five requests of trial customers together, whoever they are; the sixth takes nothing from its user's own limit.
    trials = [front.get(x_user_id=f"trial-{n}", x_plan="trial")[0] for n in range(7)]
    assert trials == [200] * 5 + [429] * 2
    assert front.statuses(3, x_user_id="trial-6") == {200: 3}
    assert front.statuses(5) == {200: 5}


@pytest.mark.parametrize(("path", "asked", "spared"), [
    ("istio/ext-authz-gateway.yaml", "/", "/healthz"),
    ("istio/ext-authz-sidecar.yaml", "/api/x", "/"),
])
def test_authorization_policy_limits(front, path, asked, spared):
    (policy,) = load(path)
    (mesh,) = load("istio/ext-authz-mesh-config.yaml")
    (provider,) = mesh["spec"]["meshConfig"]["extensionProviders"]
    filters, service = bootstraps.of_istio_policy(policy, provider)
    front.start_service(f"--rules={RULES}")
    front.start_envoy(bootstraps.bootstrap(front.ports, filters, {service: front.grpc()}))
    limits_each_user(front, asked)
    status, headers, body = front.get(asked, x_user_id="alice")
    assert status == 429 and int(headers["retry-after"]) >= 1 and "per-user" in body
    # What the policy does not select is not asked about.
    assert front.statuses(5, spared, x_user_id="alice") == {200: 5}
    front.stack.end("sluicegate")
    assert front.statuses(3, asked, x_user_id="alice") == {200: 3}


def test_security_policy_limits(front):
    policy, grant = load("envoy-gateway/security-policy.yaml")
    backend = policy["spec"]["extAuth"]["grpc"]["backendRefs"][0]
    assert grant["metadata"]["namespace"] == backend["namespace"]
    assert grant["spec"]["to"][0]["name"] == backend["name"]
    filters, per_route, service = bootstraps.of_security_policy(policy)
    front.start_service(f"--rules={RULES}")
    front.start_envoy(bootstraps.bootstrap(front.ports, filters, {service: front.grpc()}, route=per_route))
    limits_each_user(front)
