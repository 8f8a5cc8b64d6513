"""Whole Envoy configurations around the parts that gateways make of the resources in deploy/.

A gateway's controller turns resources into parts of an Envoy configuration. Here the parts are taken out of the
resources as they stand (EnvoyFilter carries them literally) or made the way the controller makes them, and put into the
smallest configuration in which they run: one listener, one route, an upstream, and the cluster that the parts name.
"""

import json

CONNECTION_MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = "envoy.extensions.filters.http.router.v3.Router"


def typed(name, **fields):
    return {"@type": f"type.googleapis.com/{name}", **fields}


def endpoint(address):
    host, port = address
    return {"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}}


def cluster(name, address, grpc=False):
    """One endpoint; HTTP/2 for gRPC."""
    made = {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "0.25s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint(address)]}]},
    }
    if grpc:
        made["typed_extension_protocol_options"] = {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": typed(
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                explicit_http_config={"http2_protocol_options": {}},
            )
        }
    return made


def bootstrap(ports, filters, services, virtual_host=None, route=None):
    """A configuration with `filters` before the router.

    `ports`: `front`, `admin`, `upstream`. `services`: cluster name -> address of the gRPC service behind it.
    `virtual_host` and `route` are merged into the only ones there are.
    """
    host = {
        "name": "everything",
        "domains": ["*"],
        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "upstream"}, **(route or {})}],
        **(virtual_host or {}),
    }
    manager = typed(
        CONNECTION_MANAGER,
        stat_prefix="front",
        use_remote_address=True,
        http_filters=[*filters, {"name": "envoy.filters.http.router", "typed_config": typed(ROUTER)}],
        route_config={"name": "front", "virtual_hosts": [host]},
    )
    listener = {
        "name": "front",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": ports["front"]}},
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
    return {
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": ports["admin"]}}},
        "static_resources": {
            "listeners": [listener],
            "clusters": [
                cluster("upstream", ("127.0.0.1", ports["upstream"])),
                *(cluster(name, address, grpc=True) for name, address in services.items()),
            ],
        },
    }


def of_envoy_filter(resource):
    """(filters, what is merged into the virtual host) of an EnvoyFilter; any other patch is an error."""
    filters, host = [], {}
    for patch in resource["spec"]["configPatches"]:
        what = patch["applyTo"], patch["patch"]["operation"]
        if what == ("HTTP_FILTER", "INSERT_BEFORE"):
            inserted = patch["match"]["listener"]["filterChain"]["filter"]["subFilter"]["name"]
            assert inserted == "envoy.filters.http.router"
            filters.append(patch["patch"]["value"])
        elif what == ("VIRTUAL_HOST", "MERGE"):
            host |= patch["patch"]["value"]
        else:
            raise AssertionError(f"no translation of {what}")
    return filters, host


def of_istio_policy(policy, provider):
    """(filters, cluster) that Istio makes of an AuthorizationPolicy with action CUSTOM and its provider.

    A filter in shadow mode marks the requests that the policy selects; ext_authz asks only about marked ones.
    """
    assert policy["spec"]["action"] == "CUSTOM" and policy["spec"]["provider"]["name"] == provider["name"]
    mark, meta = f"istio-ext-authz-{provider['name']}", policy["metadata"]
    shadow = {
        f"{mark}-ns[{meta['namespace']}]-policy[{meta['name']}]-rule[{number}]": {
            "permissions": [of_istio_operation(to["operation"]) for to in rule["to"]],
            "principals": [{"any": True}],
        }
        for number, rule in enumerate(policy["spec"]["rules"])
    }
    rbac = typed(
        "envoy.extensions.filters.http.rbac.v3.RBAC",
        shadow_rules={"action": "DENY", "policies": shadow},
        shadow_rules_stat_prefix="istio_ext_authz_",
    )
    grpc = provider["envoyExtAuthzGrpc"]
    name = f"outbound|{grpc['port']}||{grpc['service']}"
    marked = {
        "filter": "envoy.filters.http.rbac",
        "path": [{"key": "istio_ext_authz_shadow_effective_policy_id"}],
        "value": {"string_match": {"prefix": mark}},
    }
    authz = typed(
        "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
        transport_api_version="V3",
        failure_mode_allow=grpc["failOpen"],
        status_on_error={"code": "Forbidden"},
        filter_enabled_metadata=marked,
        grpc_service={
            "envoy_grpc": {"cluster_name": name, "authority": grpc["service"]},
            "timeout": seconds(grpc["timeout"]),
        },
    )
    filters = [
        {"name": "envoy.filters.http.rbac", "typed_config": rbac},
        {"name": "envoy.filters.http.ext_authz", "typed_config": authz},
    ]
    return filters, name


def of_istio_operation(operation):
    """The permission of an operation with `paths` or `notPaths`."""
    ((kind, paths),) = operation.items()
    matches = [
        {"prefix": path[:-1]} if path.endswith("*") else {"exact": path} for path in paths
    ]
    anyone = {"or_rules": {"rules": [{"url_path": {"path": match}} for match in matches]}}
    return {"paths": anyone, "notPaths": {"not_rule": anyone}}[kind]


def of_security_policy(policy):
    """(filters, per-route part, cluster) that Envoy Gateway makes of a SecurityPolicy with extAuth over gRPC."""
    auth, meta = policy["spec"]["extAuth"], policy["metadata"]
    backend = auth["grpc"]["backendRefs"][0]
    owner = f"securitypolicy/{meta['namespace']}/{meta['name']}"
    cluster_name = f"{owner}/{backend['namespace']}/{backend['name']}"
    config = typed(
        "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
        transport_api_version="V3",
        failure_mode_allow=auth["failOpen"],
        grpc_service={
            "envoy_grpc": {
                "cluster_name": cluster_name,
                "authority": f"{backend['name']}.{backend['namespace']}:{backend['port']}",
            },
            "timeout": "10s",
        },
    )
    name = f"envoy.filters.http.ext_authz/{owner}"
    # Off for all, on for the routes that the policy is for.
    per_route = typed("envoy.config.route.v3.FilterConfig", config={})
    return [{"name": name, "disabled": True, "typed_config": config}], {"typed_per_filter_config": {name: per_route}}, cluster_name


def of_backend_traffic_policy(policy, route):
    """(filters, per-route part, rules, cluster) that Envoy Gateway makes of a global rate limit on an HTTPRoute."""
    domain = f"{route['metadata']['namespace']}/{route['spec']['parentRefs'][0]['name']}/http"
    hostname = route["spec"]["hostnames"][0].replace(".", "_")
    key = f"httproute/{route['metadata']['namespace']}/{route['metadata']['name']}/rule/0/match/0/{hostname}"
    requests, rules = [], []
    for number, rule in enumerate(policy["spec"]["rateLimit"]["global"]["rules"]):
        action, entry = of_gateway_rule(number, rule)
        entry["rate_limit"] = {"requests_per_unit": rule["limit"]["requests"], "unit": rule["limit"]["unit"].upper()}
        requests.append({"actions": [{"generic_key": {"descriptor_key": key, "descriptor_value": key}}, action]})
        rules.append(entry)
    per_route = typed(
        "envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute", domain=domain, rate_limits=requests
    )
    config = typed(
        "envoy.extensions.filters.http.ratelimit.v3.RateLimit",
        domain=domain,
        disable_x_envoy_ratelimited_header=True,
        enable_x_ratelimit_headers="DRAFT_VERSION_03",
        rate_limit_service={"transport_api_version": "V3",
                            "grpc_service": {"envoy_grpc": {"cluster_name": "ratelimit_cluster"}}},
    )
    name = "envoy.filters.http.ratelimit"
    tree = {"domain": domain, "descriptors": [{"key": key, "value": key, "descriptors": rules}]}
    return [{"name": name, "typed_config": config}], {"typed_per_filter_config": {name: per_route}}, tree, "ratelimit_cluster"


def of_gateway_rule(number, rule):
    """(action, entry of the rules tree) of one rule with at most one header."""
    selectors = rule.get("clientSelectors", [])
    if not selectors:
        name = f"rule-{number}-match--1"
        return {"generic_key": {"descriptor_key": name, "descriptor_value": name}}, {"key": name, "value": name}
    (selector,) = selectors
    (header,) = selector["headers"]
    name = f"rule-{number}-match-0"
    if header.get("type") == "Distinct":
        return {"request_headers": {"descriptor_key": name, "header_name": header["name"]}}, {"key": name}
    match = {"name": header["name"], "string_match": {"exact": header["value"]}}
    action = {"descriptor_key": name, "descriptor_value": name, "expect_match": True, "headers": [match]}
    return {"header_value_match": action}, {"key": name, "value": name}


def seconds(duration):
    """`100ms` or `2s` as protobuf's JSON writes durations."""
    if duration.endswith("ms"):
        return f"{int(duration[:-2]) / 1000}s"
    return duration


def patient(config):
    """A copy in which Envoy waits long for answers: on a busy machine it would let requests pass unasked."""
    copy = json.loads(json.dumps(config))
    manager = copy["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    for http_filter in manager["http_filters"]:
        settings = http_filter["typed_config"]
        if "rate_limit_service" in settings:
            settings["timeout"] = "5s"
        if "grpc_service" in settings:
            settings["grpc_service"]["timeout"] = "5s"
    return copy
