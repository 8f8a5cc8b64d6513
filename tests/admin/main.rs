//! The admin port: the operator's API, over HTTP as a client sees it.

#![allow(clippy::expect_used, reason = "a test that cannot go on says why")]

#[path = "../support/mod.rs"]
mod support;

mod cli;
mod cost;
mod events;
mod explain;
mod guard;
mod leases;
mod quotas;
mod reading;
mod reset;
mod tls;

use support::http::Client;
use support::sluicegate::Sluicegate;

/// A token as an operator would make one.
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

const RULES: &str = r"
domain: shop
descriptors:
  - key: user
    rate_limit: { unit: hour, requests_per_unit: 3 }
  - key: path
    value: /free
    rate_limit: { unlimited: true }
  - key: tried
    rate_limit: { unit: hour, requests_per_unit: 5 }
    candidate: { unit: hour, requests_per_unit: 2 }
  - key: seen
    shadow_mode: true
    rate_limit: { unit: hour, requests_per_unit: 1 }
";

/// A running server with these rules and, if asked for, a token.
struct Admin {
    server: Sluicegate,
    api: Client,
    json: Client,
    token_file: tempfile::NamedTempFile,
}

impl Admin {
    fn start(with_token: bool, arguments: &[&str]) -> Self {
        let token_file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(token_file.path(), format!("{TOKEN}\n")).expect("the token");
        let path = token_file.path().to_str().expect("a path").to_owned();
        let mut all = arguments.to_vec();
        if with_token {
            all.extend(["--admin-token-file", &path]);
        }
        let server = Sluicegate::start(RULES, &all);
        Self {
            api: Client::new(server.admin_port),
            json: Client::new(server.http_port),
            server,
            token_file,
        }
    }

    /// What `/top` says once it has counted so many decisions, which are collected once a second.
    async fn top(&self, query: &str, hits: u64) -> serde_json::Value {
        let path = format!("/api/v1/top?{query}");
        let counted = async {
            loop {
                let top = self.api.get(&path, &[]).await.json();
                if top["hits"] == hits {
                    return top;
                }
                tokio::time::sleep(support::process::POLL).await;
            }
        };
        let counted = tokio::time::timeout(support::process::PATIENCE, counted);
        counted.await.expect("all decisions are counted")
    }

    /// Asks for one entry, this often.
    async fn ask(&self, key: &str, value: &str, times: usize) {
        let body = serde_json::json!({
            "domain": "shop",
            "descriptors": [{ "entries": [{ "key": key, "value": value }] }],
        });
        for _ in 0..times {
            self.json.post("/json", &[], &body.to_string()).await;
        }
    }
}
