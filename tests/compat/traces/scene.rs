//! The real binary with rules for both services, sending spans.

use std::{fs, time::Instant};

use sluicegate::proto::envoy::{
    extensions::common::ratelimit::v3::{RateLimitDescriptor, rate_limit_descriptor::Entry},
    service::{
        auth::v3::{
            AttributeContext, CheckRequest,
            attribute_context::{HttpRequest, Request as Asked},
            authorization_client::AuthorizationClient,
        },
        ratelimit::v3::{
            RateLimitRequest, rate_limit_response::Code, rate_limit_service_client::RateLimitServiceClient,
        },
    },
};
use tempfile::TempDir;
use tonic::{Request, transport::Channel};

use super::{PATIENCE, PERSON, SPAN, TRACE};
use crate::support::ratelimit::Ratelimit;

const RULES: &str = "
domain: shop
descriptors:
  - {key: user, rate_limit: {unit: hour, requests_per_unit: 1, name: per-user}}
ext_authz:
  default: true
  rate_limits:
    - actions:
        - request_headers: {header_name: x-user, descriptor_key: user, skip_if_absent: true}
";

/// A running server and its clients.
pub struct Server {
    /// The server.
    pub process: Ratelimit,
    rls: RateLimitServiceClient<Channel>,
    authz: AuthorizationClient<Channel>,
    _dir: TempDir,
}

impl Server {
    /// Traces to a collector there, soon unless `variables` say otherwise.
    pub async fn start(collector: &str, variables: &[(&str, &str)]) -> Self {
        let dir = rules();
        let root = dir.path().display().to_string();
        let usual = [
            ("RUNTIME_ROOT", root.as_str()),
            ("LOG_LEVEL", "info"),
            ("TRACING_ENABLED", "true"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", collector),
            ("OTEL_BSP_SCHEDULE_DELAY", "20"),
        ];
        let process = Ratelimit::start(&[&usual[..], variables].concat());
        let endpoint = Channel::from_shared(format!("http://127.0.0.1:{}", process.grpc_port)).expect("a URL");
        let channel = endpoint.timeout(PATIENCE).connect().await.expect("a connection");
        Self {
            process,
            rls: RateLimitServiceClient::new(channel.clone()),
            authz: AuthorizationClient::new(channel),
            _dir: dir,
        }
    }

    /// Asks for one hit of the person, as part of this trace.
    pub async fn ask(&mut self, domain: &str, headers: &[(&'static str, &str)]) -> Result<Code, tonic::Status> {
        let entry = Entry {
            key: "user".into(),
            value: PERSON.into(),
        };
        let mut request = Request::new(RateLimitRequest {
            domain: domain.into(),
            descriptors: vec![RateLimitDescriptor {
                entries: vec![entry],
                ..Default::default()
            }],
            hits_addend: 0,
        });
        for (name, value) in headers {
            request.metadata_mut().insert(*name, value.parse().expect("ASCII"));
        }
        let answer = self.rls.should_rate_limit(request).await?;
        Ok(answer.into_inner().overall_code())
    }

    /// The same through the other service.
    pub async fn check(&mut self) -> i32 {
        let http = HttpRequest {
            method: "GET".into(),
            path: "/".into(),
            headers: [("x-user".to_owned(), PERSON.to_owned())].into(),
            ..Default::default()
        };
        let attributes = AttributeContext {
            request: Some(Asked {
                http: Some(http),
                ..Default::default()
            }),
            ..Default::default()
        };
        let mut request = Request::new(CheckRequest {
            attributes: Some(attributes),
        });
        let parent = format!("{TRACE}-{SPAN}-1");
        request.metadata_mut().insert("b3", parent.parse().expect("ASCII"));
        let answer = self.authz.check(request).await.expect("an answer").into_inner();
        answer.status.expect("a status").code
    }

    /// Spans so counted by now.
    pub async fn counted(&self, result: &str) -> u64 {
        let start = format!("sluicegate_trace_spans_total{{result=\"{result}\"}} ");
        let text = self.process.debug().get("/metrics", &[]).await.body;
        let line = text.lines().find_map(|line| line.strip_prefix(&start));
        line.map_or(0, |count| count.parse().expect("a number"))
    }

    /// Waits until so many are counted so.
    pub async fn wait_for_count(&self, result: &str, count: u64) {
        let start = Instant::now();
        while self.counted(result).await < count {
            assert!(start.elapsed() < PATIENCE, "{}", self.process.process.log());
        }
    }

    /// How often the log says this.
    pub fn lines(&self, text: &str) -> usize {
        self.process.process.log().matches(text).count()
    }
}

/// A directory with them, as `RUNTIME_ROOT`.
pub fn rules() -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir(dir.path().join("config")).expect("a directory");
    fs::write(dir.path().join("config/rules.yaml"), RULES).expect("a file");
    dir
}
