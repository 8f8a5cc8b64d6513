//! Metrics to statsd, over real sockets.

use std::{
    collections::BTreeMap,
    io::Read,
    net::{TcpListener, UdpSocket},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use sluicegate::{
    config::{
        Text, load,
        settings::{StatsdSettings, StatsdTransport},
    },
    rules::Defaults,
    telemetry::{Metrics, ServiceKind, statsd::Statsd},
};

/// Only reached on failure.
const PATIENCE: Duration = Duration::from_secs(10);

/// A rule whose key and value would break a line, or a name, if they were taken as they are.
const RULES: &str = r#"
domain: "a.b"
descriptors:
  - {key: "path", value: "/v1.2|c\n@0.1", rate_limit: {unit: minute, requests_per_unit: 5}}
"#;

fn settings(transport: StatsdTransport, port: u16, dogstatsd: bool) -> StatsdSettings {
    let flush_interval = Duration::from_millis(50);
    StatsdSettings {
        host: "127.0.0.1".into(),
        port,
        transport,
        dogstatsd,
        flush_interval,
    }
}

fn tags() -> BTreeMap<String, String> {
    BTreeMap::from([("cluster".to_owned(), "eu.1".to_owned())])
}

/// Metrics with three hits on a rule, one of them denied, and three requests.
fn busy(tags: &BTreeMap<String, String>) -> Arc<Metrics> {
    let metrics = Metrics::with_tags(tags).expect("metrics");
    let text = Text {
        name: "r.yaml".into(),
        text: RULES.into(),
    };
    let rules = load(&[text], &Defaults::default()).expect("good rules");
    let stats = metrics.rules.activate(&rules);
    stats[0].total_hits.fetch_add(3, Ordering::Relaxed);
    stats[0].over_limit.fetch_add(1, Ordering::Relaxed);
    let rls = metrics.service(ServiceKind::Rls);
    for seconds in [0.000_2, 0.000_2, 3.0] {
        rls.ok.inc();
        rls.duration.observe(seconds);
    }
    metrics.config.refused();
    Arc::new(metrics)
}

/// The lines that arrive until there are so many that name a metric.
fn receive(socket: &UdpSocket, wanted: &[&str]) -> Vec<String> {
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let (mut lines, start) = (Vec::<String>::new(), Instant::now());
    while !wanted.iter().all(|line| lines.iter().any(|found| found == line)) {
        assert!(start.elapsed() < PATIENCE, "{wanted:#?} in {lines:#?}");
        let mut datagram = [0; 65_536];
        let length = socket
            .recv(&mut datagram)
            .unwrap_or_else(|error| panic!("{error}: {lines:#?}"));
        assert!(length <= 1432, "{length} bytes in a datagram");
        let text = std::str::from_utf8(&datagram[..length]).expect("UTF-8");
        lines.extend(text.lines().map(str::to_owned));
    }
    lines
}

#[test]
fn plain_statsd_gets_the_names_of_envoyproxy_ratelimit() {
    let server = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let port = server.local_addr().expect("an address").port();
    let metrics = busy(&tags());
    let sending = Statsd::start(
        settings(StatsdTransport::Udp, port, false),
        &tags(),
        Arc::clone(&metrics),
    );
    let rule = "ratelimit.service.rate_limit.a_b.path_/v1_2_c__0_1";
    let tag = ".__cluster=eu_1";
    let hits = format!("{rule}.total_hits{tag}:3|c");
    let wanted = [
        hits.clone(),
        format!("{rule}.over_limit{tag}:1|c"),
        format!("ratelimit.service.config_load_error{tag}:1|c"),
        format!("ratelimit_server.ShouldRateLimit.total_requests{tag}:3|c"),
        format!("ratelimit_server.ShouldRateLimit.response_time{tag}:0.25|ms|@0.5"),
        format!("ratelimit_server.ShouldRateLimit.response_time{tag}:1000|ms|@1"),
        format!("sluicegate_requests_total.ok.rls{tag}:3|c"),
    ];
    let lines = receive(&server, &wanted.each_ref().map(String::as_str));
    assert!(
        lines.iter().all(|line| line.matches([':', '|']).count() <= 3),
        "{lines:#?}"
    );

    // Only growth is sent, once.
    metrics.service(ServiceKind::Rls).ok.inc();
    let one = format!("ratelimit_server.ShouldRateLimit.total_requests{tag}:1|c");
    let more = receive(&server, &[&one]);
    assert!(!more.contains(&hits), "{more:#?}");
    drop(sending);
}

#[test]
fn dogstatsd_gets_tags() {
    let server = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let port = server.local_addr().expect("an address").port();
    let _sending = Statsd::start(settings(StatsdTransport::Udp, port, true), &tags(), busy(&tags()));
    receive(
        &server,
        &[
            "ratelimit.service.rate_limit.total_hits:3|c|#domain:a_b,key1:path_/v1_2_c__0_1,cluster:eu_1",
            "ratelimit_server.total_requests:3|c|#grpc_method:ShouldRateLimit,cluster:eu_1",
        ],
    );
}

#[test]
fn over_tcp_nothing_is_lost_while_the_server_is_away() {
    let reserved = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = reserved.local_addr().expect("an address");
    drop(reserved);
    let none = BTreeMap::new();
    let _sending = Statsd::start(
        settings(StatsdTransport::Tcp, address.port(), false),
        &none,
        busy(&none),
    );
    // A few flushes find nobody.
    std::thread::sleep(Duration::from_millis(200));
    let server = TcpListener::bind(address).expect("the port is free");
    let (mut connection, _) = server.accept().expect("a connection");
    connection.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let (mut text, start) = (String::new(), Instant::now());
    while !text.contains("ratelimit_server.ShouldRateLimit.total_requests:3|c\n") {
        assert!(start.elapsed() < PATIENCE, "{text}");
        let mut bytes = [0; 4096];
        let length = connection.read(&mut bytes).expect("bytes");
        text.push_str(std::str::from_utf8(&bytes[..length]).expect("UTF-8"));
    }
}
