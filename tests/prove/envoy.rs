//! Descriptors by an Envoy's routes: a real Envoy and the evaluator agree, whatever the routes say.

mod generator;

use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use sluicegate::model::Descriptor;
use sluicegate::proto::envoy::service::ratelimit::v3::RateLimitRequest;
use sluicegate::prove::envoy::Routes;
use sluicegate::prove::http::HttpRequest;

use self::generator::Generator;
use crate::support::http::Client;
use crate::support::process::{Process, free_port};
use crate::support::recorder::Recorder;
use crate::support::{self};
use crate::{directory, sluicegate, text};

/// Route configurations, spread over listeners that differ in how they find the client's address.
const CONFIGURATIONS: usize = 300;
const REQUESTS: usize = 8;
const MANAGERS: [(bool, u64); 4] = [(true, 0), (false, 0), (true, 1), (false, 1)];

fn listener(port: u16, number: usize, hosts: &[Value]) -> Value {
    let (use_remote_address, hops) = MANAGERS[number];
    json!({
        "name": format!("listener {number}"),
        "address": { "socket_address": { "address": "127.0.0.1", "port_value": port } },
        "filter_chains": [{ "filters": [{
            "name": "hcm",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": "hcm", "use_remote_address": use_remote_address, "xff_num_trusted_hops": hops,
                "http_filters": [
                    { "name": "limiter", "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit",
                        "domain": "shop", "timeout": "20s",
                        "rate_limit_service": { "transport_api_version": "V3", "grpc_service": { "envoy_grpc": { "cluster_name": "limiter" } } },
                    } },
                    { "name": "router", "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" } },
                ],
                "route_config": { "name": "routes", "virtual_hosts": hosts },
            },
        }] }],
    })
}

pub(super) fn cluster(name: &str, port: u16, http2: bool) -> Value {
    let mut cluster = json!({
        "name": name, "type": "STATIC", "connect_timeout": "5s",
        "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": [{ "endpoint": {
            "address": { "socket_address": { "address": "127.0.0.1", "port_value": port } } } }] }] },
    });
    if http2 {
        cluster["typed_extension_protocol_options"] = json!({ "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": { "http2_protocol_options": {} } } });
    }
    cluster
}

/// What Envoy sent, or would have by the evaluator: domain, and entries with hits of each descriptor.
pub(super) type Asked = (String, Vec<(Vec<(String, String)>, Option<u64>)>);

pub(super) fn evaluated(routes: &Routes, request: &HttpRequest) -> Vec<Asked> {
    let calls = routes
        .calls(request, false, 4096)
        .unwrap_or_else(|error| panic!("{error}: {request:?}"));
    let entries = |d: &Descriptor| d.entries.iter().map(|e| (e.key.clone(), e.value.clone())).collect();
    let asked = calls.iter().map(|call| {
        let all = call.descriptors.iter().map(|d| (entries(d), d.hits_addend));
        (call.domain.to_string(), all.collect())
    });
    asked.collect()
}

pub(super) fn recorded(recorder: &Recorder) -> Vec<Asked> {
    let (_, limits) = recorder.take();
    limits.iter().filter_map(asked).collect()
}

fn asked(request: &RateLimitRequest) -> Option<Asked> {
    let all = request.descriptors.iter().map(|descriptor| {
        let entries = descriptor
            .entries
            .iter()
            .map(|entry| (text(&entry.key), text(&entry.value)));
        (entries.collect(), descriptor.hits_addend)
    });
    // Envoy sends a descriptor without entries where each is skipped; no rule can apply to it.
    let all: Vec<(Vec<_>, _)> = all.filter(|(entries, _): &(Vec<_>, _)| !entries.is_empty()).collect();
    (!all.is_empty()).then(|| (request.domain.clone(), all))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_envoys_descriptors_and_ours_are_equal() {
    let seed = std::env::var("PROVE_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(16);
    let mut generator = Generator(StdRng::seed_from_u64(seed));
    let recorder = Recorder::start().await;
    let hosts: Vec<Value> = (0..CONFIGURATIONS).map(|number| generator.host(number)).collect();
    let ports: [u16; MANAGERS.len()] = std::array::from_fn(|_| free_port());
    let chunks = hosts.chunks(CONFIGURATIONS.div_ceil(MANAGERS.len()));
    let listeners: Vec<_> = chunks
        .enumerate()
        .map(|(at, hosts)| listener(ports[at], at, hosts))
        .collect();
    let config = json!({
        "node": { "id": "n", "cluster": "edge" },
        "static_resources": {
            "listeners": listeners,
            "clusters": [cluster("limiter", recorder.port, true), cluster("upstream", free_port(), false)],
        },
    });
    let directory = directory(&[("envoy.json", &config.to_string())]);
    let file = directory.path().join("envoy.json");
    let mut command = support::envoy::command(&file, 1);
    let mut envoy = Process::spawn("envoy", command.args(["--log-level", "error"]));
    let mut asked = 0;
    let mut wrong = Vec::new();
    for (at, port) in ports.into_iter().enumerate() {
        envoy.wait_for_port(port);
        let routes = Routes::read(&file, Some(&format!("listener {at}"))).expect("routes");
        let client = Client::new(port);
        let size = CONFIGURATIONS.div_ceil(MANAGERS.len());
        for (number, host) in hosts.iter().enumerate().skip(at * size).take(size) {
            for _ in 0..REQUESTS {
                let request = generator.request(number);
                let headers: Vec<_> = request
                    .headers
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.as_str()))
                    .collect();
                client.get(&request.path, &headers).await;
                let (came, ours) = (recorded(&recorder), evaluated(&routes, &request));
                asked += usize::from(!came.is_empty());
                if came != ours {
                    wrong.push(format!("{request:?}\n  Envoy {came:?}\n  ours  {ours:?}\n  {}", host));
                }
            }
        }
    }
    // Most routes ask, or the comparison would be of nothing with nothing.
    assert!(asked > CONFIGURATIONS * REQUESTS / 4, "{asked}");
    let shown = wrong.iter().take(8).cloned().collect::<Vec<_>>().join("\n\n");
    assert!(
        wrong.is_empty(),
        "seed {seed}: {} of {asked} differ:\n{shown}",
        wrong.len()
    );
}

const RULES: &str = "domain: demo\ndescriptors:\n  - { key: remote_address, rate_limit: { requests_per_unit: 2, unit: minute } }\n  \
                     - { key: api_key, rate_limit: { name: keyed, requests_per_unit: 1, unit: minute } }\n";

#[test]
fn requests_of_a_test_go_through_the_routes_of_the_projects_own_envoy() {
    let config = support::envoy::project_path("envoy.yaml");
    let tests = format!(
        "rules: [rules.yaml]\nenvoy: {}\ntests:\n  - name: by the routes\n    steps:\n      - {{ request: {{ http: GET /, host: x, \
         client: 192.0.2.1, headers: {{ x-api-key: a }} }}, expect: {{ descriptors: [[remote_address: 192.0.2.1], [api_key: a]] }} \
         }}\n      - {{ request: {{ http: GET /, host: x, client: 192.0.2.2, headers: {{ x-api-key: a }} }}, expect: {{ denied_by: \
         keyed }} }}\n",
        config.display()
    );
    let directory = directory(&[("rules.yaml", RULES), ("t.yaml", &tests)]);
    let output = sluicegate(directory.path(), &["test", "t.yaml"]);
    assert!(
        output.status.success(),
        "{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
}

/// What other filters write is known to Envoy alone: only requests that reach such a route are refused.
#[test]
fn what_cannot_be_evaluated_is_refused_by_name() {
    let rate_limits = [
        json!({ "actions": [{ "metadata": { "descriptor_key": "k", "metadata_key": { "key": "jwt", "path": [{ "key": "sub" }] } } }] }),
        json!({ "actions": [{ "extension": { "name": "cel" } }] }),
        json!({ "actions": [{ "generic_key": { "descriptor_value": "%REQ(x)%" } }] }),
        json!({ "actions": [{ "request_headers": { "header_name": "x-request-id", "descriptor_key": "k" } }] }),
        json!({ "actions": [{ "remote_address": {} }], "apply_on_stream_done": true }),
        json!({ "actions": [{ "remote_address": {} }], "limit": { "dynamic_metadata": {} } }),
    ];
    let route = |(at, limit): (usize, &Value)| json!({ "match": { "path": format!("/{at}") }, "route": { "cluster": "c", "rate_limits": [limit] } });
    let mut routes: Vec<_> = rate_limits.iter().enumerate().map(route).collect();
    routes.insert(0, json!({ "match": { "path": "/fine" }, "route": { "cluster": "c" } }));
    routes.push(json!({ "match": { "connect_matcher": {} }, "route": { "cluster": "c" } }));
    let host = json!({ "name": "shop", "domains": ["*"], "routes": routes });
    let config = json!({ "static_resources": { "listeners": [listener(1, 0, &[host])] } });
    let directory = directory(&[("envoy.json", &config.to_string())]);
    let routes = Routes::read(&directory.path().join("envoy.json"), None).expect("routes");
    let ask = |path: &str| {
        let request = HttpRequest {
            path: path.to_owned(),
            ..HttpRequest::default()
        };
        routes.calls(&request, false, 4096)
    };
    assert_eq!(ask("/fine"), Ok(Vec::new()));
    for (path, part) in [
        (
            "/0",
            "rate_limits #1, actions #1, metadata: cannot be evaluated: metadata that other filters write",
        ),
        ("/1", "actions #1, extension: cannot be evaluated: this kind of action"),
        ("/2", "a format in descriptor_value"),
        ("/3", "Envoy itself writes the header x-request-id"),
        ("/4", "apply_on_stream_done"),
        (
            "/5",
            "virtual host shop, route #7, rate_limits #1: cannot be evaluated: limit",
        ),
        (
            "/none",
            "virtual host shop, route #8: cannot be evaluated: match by connect_matcher",
        ),
    ] {
        let error = ask(path).expect_err(path).to_string();
        assert!(error.contains(part), "{path}: {part:?} in {error}");
    }
}

#[test]
fn a_config_dump_has_the_routes_that_come_by_rds() {
    let host = json!({ "name": "shop", "domains": ["*"], "routes": [
        { "match": { "prefix": "/" }, "route": { "cluster": "c", "rateLimits": [{ "actions": [{ "genericKey": { "descriptorValue": "v" } }] }] } },
    ] });
    let mut dynamic = listener(1, 0, &[]);
    let manager = &mut dynamic["filter_chains"][0]["filters"][0]["typed_config"];
    manager.as_object_mut().expect("an object").remove("route_config");
    manager["rds"] = json!({ "route_config_name": "routes" });
    let mut dump = json!({ "configs": [
        { "bootstrap": { "node": { "cluster": "edge" } } },
        { "dynamic_listeners": [{ "name": "front", "active_state": { "listener": dynamic } }] },
    ] });
    let directory = directory(&[("dump.json", &dump.to_string())]);
    let file = directory.path().join("dump.json");
    let error = Routes::read(&file, None).err().expect("no routes").to_string();
    assert!(error.contains("/config_dump"), "{error}");
    dump["configs"].as_array_mut().expect("a list").push(json!({
        "dynamic_route_configs": [{ "route_config": { "name": "routes", "virtual_hosts": [host] } }],
    }));
    std::fs::write(&file, dump.to_string()).expect("a file");
    let routes = Routes::read(&file, None).expect("routes");
    let calls = |request: &HttpRequest| routes.calls(request, false, 64).expect("calls");
    assert_eq!(calls(&HttpRequest::default()), Vec::new(), "no path matches no prefix");
    let request = HttpRequest {
        path: "/".to_owned(),
        ..HttpRequest::default()
    };
    let [call] = &calls(&request)[..] else {
        panic!("one call")
    };
    assert_eq!((&*call.domain, &*call.descriptors[0].entries[0].value), ("shop", "v"));
}
