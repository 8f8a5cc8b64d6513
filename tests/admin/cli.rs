//! `sluicegate status|top|explain|counters|reset` against a running server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::time::Instant;

use crate::support::process::{PATIENCE, POLL};
use crate::{Admin, TOKEN};

/// Runs the binary; what it printed on either stream, and whether it succeeded.
fn sluicegate(admin: &Admin, arguments: &[&str]) -> (bool, String) {
    sluicegate_at(admin.server.admin_port, arguments)
}

fn sluicegate_at(port: u16, arguments: &[&str]) -> (bool, String) {
    sluicegate_with(&format!("http://127.0.0.1:{port}"), arguments)
}

/// The same against this URL.
pub(crate) fn sluicegate_with(url: &str, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluicegate"));
    let Output { status, stdout, stderr } = command
        .args(arguments)
        .env("ADMIN_URL", url)
        .output()
        .expect("the binary runs");
    let text = [stdout, stderr].concat();
    (status.success(), String::from_utf8(text).expect("UTF-8"))
}

#[tokio::test]
async fn tables_for_people_and_json_for_scripts() {
    let admin = Admin::start(false, &[]);
    let hostile = "mallory\u{1b}[2J\u{202e}\u{200b}";
    admin.ask("user", hostile, 8).await;
    admin.top("by=hits", 8).await;
    let (ok, top) = sluicegate(&admin, &["top", "--window", "1m"]);
    assert!(ok && top.contains("8 decisions, 5 denied"), "{top}");
    assert!(
        top.contains(r"shop    user  user=mallory\u{1b}[2J\u{202e}\u{200b}"),
        "{top}"
    );
    let (ok, top) = sluicegate(&admin, &["top", "-o", "json", "--by", "hits"]);
    let top: serde_json::Value = serde_json::from_str(&top).expect("JSON");
    assert!(ok && top["counters"][0]["denied"] == 5, "{top}");
    let (ok, status) = sluicegate(&admin, &["status"]);
    assert!(ok && status.contains("4 in 1 domains, generation 1"), "{status}");
    let entry = format!("user={hostile}");
    let (ok, explained) = sluicegate(&admin, &["explain", "--domain", "shop", &entry]);
    assert!(ok && explained.contains("counted by rule user ("), "{explained}");
    assert!(
        explained.contains("used       3 of 3\n  limit      3 per hour, sliding_window")
            && explained.contains("would be denied"),
        "{explained}"
    );
    let (ok, counter) = sluicegate(&admin, &["counters", "--domain", "shop", &entry]);
    assert!(ok && counter.contains("read from  memory"), "{counter}");
}

#[tokio::test]
async fn what_is_wrong_is_said_with_what_to_do() {
    let admin = Admin::start(true, &[]);
    for (url, hint) in [
        ("localhost:6070", "; write http://localhost:6070"),
        ("10.0.0.1", "; write http://10.0.0.1"),
        (
            "http://me:secret-word@localhost:6070",
            "; the token is no part of it: --token-file (or ADMIN_TOKEN_FILE)",
        ),
        ("me:secret-word@localhost:6070", "; the token is no part of it"),
        ("ftp://localhost:6070", ", not \"ftp://localhost:6070\""),
        ("http://localhost:6070/api", ", not \"http://localhost:6070/api\""),
    ] {
        let (ok, said) = sluicegate(&admin, &["status", "--admin", url]);
        let expected = format!("--admin: allowed is http://host:port, or https://host:port{hint}");
        assert!(
            !ok && said.contains(&expected) && !said.contains("secret-word"),
            "{url}: {said}"
        );
    }
    let nobody = format!("http://127.0.0.1:{}", crate::support::process::free_port());
    let (ok, said) = sluicegate(&admin, &["status", "--admin", &nobody]);
    assert!(
        !ok && said.contains("does not answer") && said.contains("port-forward"),
        "{said}"
    );
    let (ok, said) = sluicegate(&admin, &["counters", "--domain", "shop", "nothing=x"]);
    assert!(!ok && said.contains("404") && said.contains("no rule counts"), "{said}");
    for (flag, name) in [("--rule", "nope"), ("--domain", "shopp")] {
        let (ok, said) = sluicegate(&admin, &["top", flag, name]);
        let what = format!("no such {}", &flag[2..]);
        assert!(!ok && said.contains("404") && said.contains(&what), "{said}");
    }
    for arguments in [["--rule", "user"], ["--domain", "shop"]] {
        let (ok, said) = sluicegate(&admin, &[&["top"], &arguments[..]].concat());
        assert!(ok, "it is only quiet: {said}");
    }
    let wrong = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(wrong.path(), TOKEN.to_uppercase()).expect("a token");
    let path = wrong.path().to_str().expect("a path");
    let (ok, said) = sluicegate(&admin, &["status", "--token-file", path]);
    assert!(
        !ok && said.contains("401") && !said.contains(&TOKEN.to_uppercase()),
        "{said}"
    );
}

#[tokio::test]
async fn a_reset_is_shown_first_and_done_when_told() {
    let admin = Admin::start(true, &[]);
    admin.ask("user", "mallory", 8).await;
    let path = admin.token_file.path().to_str().expect("a path");
    let arguments = ["reset", "--domain", "shop", "user=mallory", "--token-file", path];
    let (ok, said) = sluicegate(&admin, &arguments[..4]);
    assert!(!ok && said.contains("401") && said.contains("admin token"), "{said}");
    assert!(said.contains("--token-file (or ADMIN_TOKEN_FILE)"), "{said}");
    // No terminal, nobody to ask: a script must not take that for done.
    for format in ["table", "json"] {
        let (ok, said) = sluicegate(&admin, &[&arguments[..], &["-o", format]].concat());
        assert!(
            !ok && said.contains("nothing was reset: no terminal to ask at"),
            "{said}"
        );
        let shown = match format {
            "table" => said.contains("shop  user=mallory  3 used") && said.contains("1 counter would be reset"),
            _ => said.contains("\"used\": 3"),
        };
        assert!(shown, "{said}");
    }
    let (ok, said) = sluicegate(&admin, &[&arguments[..], &["--yes", "-o", "json"]].concat());
    let done: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert!(ok && done["counters"] == 1 && done["hits"] == 3, "{said}");
    let (ok, said) = sluicegate(&admin, &[&arguments[..], &["--yes"]].concat());
    assert!(ok && said.contains("1 counter reset (0 hits were in use)"), "{said}");
}

/// Runs the binary against a process that gives these answers; what it printed, whether it succeeded, and what it asked.
fn against(answers: &'static [&'static str], arguments: &[&str]) -> (bool, String, Vec<serde_json::Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let answering = std::thread::spawn(move || {
        let answer = |answer: &&str| {
            let (mut stream, _) = listener.accept().expect("a call");
            let mut reader = BufReader::new(stream.try_clone().expect("a stream"));
            let (mut line, mut length) = (String::new(), 0);
            while reader.read_line(&mut line).expect("a head") > 2 {
                if let Some(of_body) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = of_body.trim().parse().expect("a length");
                }
                line.clear();
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).expect("a body");
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", answer.len());
            stream
                .write_all(&[head.as_bytes(), answer.as_bytes()].concat())
                .expect("sent");
            serde_json::from_slice(&body).expect("JSON")
        };
        answers.iter().map(answer).collect()
    });
    let (ok, said) = sluicegate_at(port, arguments);
    (ok, said, answering.join().expect("all were asked for"))
}

/// The next connection; fails when none comes.
fn accepted(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).expect("a setting");
    let start = Instant::now();
    loop {
        if let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(false).expect("a setting");
            return stream;
        }
        assert!(start.elapsed() < PATIENCE, "nobody asks");
        std::thread::sleep(POLL);
    }
}

/// In a terminal of ten lines: a look that fails is shown, and the next one takes its place.
#[test]
fn top_goes_on_after_a_look_that_fails_and_fits_the_terminal() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let top = r#"{"hits":9,"denied":DENIED,"by":"denied","window":"1m","covers_seconds":60,"counters":[]}"#;
    let command = format!(
        "stty rows 10 cols 60; exec {} top --admin {url}",
        env!("CARGO_BIN_EXE_sluicegate")
    );
    let mut terminal = Command::new("script")
        .args(["-qfec", &command, "/dev/null"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("script(1)");
    let mut asked = Vec::new();
    for denied in [Some("4"), None, Some("5")] {
        let mut stream = accepted(&listener);
        let mut line = String::new();
        let mut reader = BufReader::new(stream.try_clone().expect("a stream"));
        reader.read_line(&mut line).expect("a request");
        asked.push(line);
        // Of the second the connection just ends.
        if let Some(denied) = denied {
            let body = top.replace("DENIED", denied);
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).expect("sent");
        }
    }
    let mut shown = Vec::new();
    let mut out = terminal.stdout.take().expect("its output");
    while !String::from_utf8_lossy(&shown).contains("5 denied in the last") {
        let mut part = [0; 4096];
        let read = out.read(&mut part).expect("what it shows");
        assert!(read > 0, "it has ended: {}", String::from_utf8_lossy(&shown));
        shown.extend(&part[..read]);
    }
    terminal.kill().expect("it runs");
    terminal.wait().expect("its end");
    let shown = String::from_utf8_lossy(&shown);
    let failed = shown
        .find("NO ANSWER, this is old; trying again: 127.0.0.1:")
        .expect("the failed look");
    assert!(shown.find("4 denied in the last") < Some(failed), "{shown}");
    assert!(asked.iter().all(|line| line.contains("limit=7")), "{asked:?}");
}

#[test]
fn a_reset_by_rule_follows_the_search_to_its_end() {
    let reset = ["reset", "--domain", "shop", "--rule", "user", "--yes"];
    let nothing = r#"{"token":"a","counters":0,"complete":false,"next":"0.0.7","sample":[]}"#;
    let some = r#"{"token":"b","counters":2,"complete":false,"next":"0.0.9","sample":[]}"#;
    let done = r#"{"counters":2,"hits":5,"replicas_told":true}"#;
    let last = r#"{"token":"c","counters":0,"complete":true,"sample":[]}"#;
    let answers: &[&str] = Box::leak(Box::new([nothing, some, done, last]));
    let (ok, said, asked) = against(answers, &reset);
    assert!(ok && said.contains("the search goes on"), "{said}");
    assert!(
        said.contains("2 counters reset (5 hits") && !said.contains("no counter fits"),
        "{said}"
    );
    assert_eq!(
        (&asked[1]["from"], &asked[3]["from"]),
        (&"0.0.7".into(), &"0.0.9".into())
    );
    assert_eq!((asked[0].get("from"), &asked[2]["token"]), (None, &"b".into()));
    // One document for a script, which is not told of what found nothing.
    let (ok, said, _) = against(answers, &[&reset[..], &["-o", "json"]].concat());
    assert!(
        ok && said.contains("\"counters\": 2") && !said.contains("sample"),
        "{said}"
    );
}

#[test]
fn a_search_that_cannot_go_on_is_not_taken_for_one_that_found_nothing() {
    let answers = &[r#"{"token":"a","counters":0,"complete":false,"sample":[]}"#];
    let (ok, said, _) = against(answers, &["reset", "--domain", "shop", "--rule", "user", "--yes"]);
    assert!(!ok && said.contains("the search is not complete"), "{said}");
    assert!(!said.contains("no counter fits"), "{said}");
}

/// An Envoy that counts by user, but for what is open.
const ENVOY: &str = r#"
static_resources:
  listeners:
    - name: front
      address: { socket_address: { address: 127.0.0.1, port_value: 10000 } }
      filter_chains:
        - filters:
            - name: hcm
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: front
                http_filters:
                  - name: limiter
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit
                      domain: shop
                      rate_limit_service: { transport_api_version: V3, grpc_service: { envoy_grpc: { cluster_name: limiter } } }
                  - name: router
                    typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }
                route_config:
                  virtual_hosts:
                    - name: all
                      domains: ["*"]
                      routes:
                        - match: { prefix: /open }
                          route: { cluster: up }
                        - match: { prefix: / }
                          route:
                            cluster: up
                            rate_limits:
                              - actions: [{ request_headers: { header_name: x-user, descriptor_key: user } }]
"#;

#[tokio::test]
async fn a_request_is_explained_by_the_routes_of_an_envoy() {
    let admin = Admin::start(false, &[]);
    admin.ask("user", "mallory", 8).await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), ENVOY).expect("a bootstrap");
    let path = file.path().to_str().expect("a path");
    let explain = |request: &str, more: &[&str]| {
        let arguments = ["explain", "--envoy", path, "--http", "GET", request];
        sluicegate(&admin, &[&arguments[..], more].concat())
    };
    let (ok, explained) = explain("/cart", &["-H", "x-user: mallory"]);
    assert!(
        ok && explained.contains("user=mallory: counted by rule user ("),
        "{explained}"
    );
    assert!(explained.contains("would be denied"), "{explained}");
    let (ok, explained) = explain("/open", &["-H", "x-user: mallory"]);
    assert!(ok && explained.contains("makes no descriptors"), "{explained}");
    let (ok, said) = explain("/cart", &["--listener", "nobody"]);
    assert!(
        !ok && said.contains("--envoy") && said.contains("none is named \"nobody\"; there are front"),
        "{said}"
    );
}

/// Each filter is explained, up to the one that denies: Envoy asks no further.
#[tokio::test]
async fn a_request_is_explained_filter_by_filter() {
    let admin = Admin::start(false, &[]);
    let first = ENVOY.find("                  - name: limiter\n").expect("a filter");
    let end = ENVOY
        .find("                  - name: router\n")
        .expect("the last filter");
    let second = ENVOY[first..end]
        .replace("name: limiter\n", "name: second\n")
        .replace("domain: shop", "domain: shop\n                      stage: 1");
    let limits = "\n                              - { stage: 1, actions: [{ request_headers: { header_name: x-user, \
                  descriptor_key: seen } }] }\n";
    let two = [&ENVOY[..end], &second, ENVOY[end..].trim_end(), limits].concat();
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), two).expect("a bootstrap");
    let path = file.path().to_str().expect("a path");
    let explain = || {
        sluicegate(
            &admin,
            &["explain", "--envoy", path, "--http", "GET", "/", "-H", "x-user: ann"],
        )
    };
    let (ok, explained) = explain();
    let (user, seen) = (explained.find("user=ann: counted"), explained.find("seen=ann: counted"));
    assert!(ok && user.is_some() && user < seen, "{explained}");
    admin.ask("user", "ann", 4).await;
    let (ok, explained) = explain();
    assert!(ok && explained.contains("would be denied"), "{explained}");
    assert!(!explained.contains("seen=ann"), "{explained}");
}
