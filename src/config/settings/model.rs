//! The settings as types. `Default` of a part is its blank, which the defaults of the table fill: use
//! [`Settings::default`].

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::redis::RedisSettings;
use super::traces::TraceSettings;
use super::xds::XdsSettings;
use crate::model::AlgorithmKind;
use crate::rules::OnStoreError;
use crate::tls::ServerTls;

/// Everything that is decided before the process serves.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Where the rules come from.
    pub rules: RulesSettings,
    /// Where counters live.
    pub store: StoreSettings,
    /// Where the process listens.
    pub listen: ListenSettings,
    /// What answers look like.
    pub answers: AnswerSettings,
    /// Logs, metrics and traces.
    pub telemetry: TelemetrySettings,
    /// Bounds, and how the process ends.
    pub limits: ProcessLimits,
    /// What a measurement leaves out; no flag of `serve` and no variable says so.
    pub ablation: Ablation,
}

/// Parts of the server that `sluicegate-bench serve` can leave out, to show what each is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ablation {
    /// Each request goes to Redis in a call of its own.
    pub no_batching: bool,
    /// All connections share one work-stealing runtime.
    pub no_cores: bool,
}

/// Where the rules come from. With neither `paths` nor `xds` the built-in example is served.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RulesSettings {
    /// Files and directories; watched.
    pub paths: Vec<PathBuf>,
    /// Files whose name starts with a dot are not rules (`RUNTIME_IGNOREDOTFILES`).
    pub ignore_dot_files: bool,
    /// A directory without files is a configuration without rules, not an error.
    pub may_be_empty: bool,
    /// A control plane instead of files (`CONFIG_TYPE=GRPC_XDS_SOTW`); `paths` is empty then.
    pub xds: Option<XdsSettings>,
    /// The algorithm of a rule that names none.
    pub default_algorithm: AlgorithmKind,
    /// Whether denied hits are counted where a rule does not say.
    pub count_denied: bool,
    /// Whether hits that a descriptor brings are charged, fit or not, on rules that requests ask first with 0 hits or
    /// none of their own.
    pub charge_after_peek: bool,
    /// The same domain may stand in several files (`MERGE_DOMAIN_CONFIG`).
    pub merge_domains: bool,
    /// Serve before the first rules have come (`FORCE_START_WITHOUT_INITIAL_CONFIG`): requests get UNAVAILABLE until
    /// then. If false, nothing listens before.
    pub force_start: bool,
    /// Healthy only while the rules hold at least one domain (`HEALTHY_WITH_AT_LEAST_ONE_CONFIG_LOADED`).
    pub healthy_needs_domain: bool,
}

/// Which store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StoreKind {
    /// In this process.
    #[default]
    Memory,
    /// In Redis, shared by all replicas.
    Redis,
}

/// Where counters live.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StoreSettings {
    /// Which store.
    pub kind: StoreKind,
    /// Present if and only if `kind` is [`StoreKind::Redis`].
    pub redis: Option<RedisSettings>,
    /// A server of their own for limits with a window of one second (`REDIS_PERSECOND`).
    pub redis_per_second: Option<RedisSettings>,
    /// The longest that a request waits for the store; Envoy's own default is 20 ms for the whole answer.
    pub timeout: Duration,
    /// What happens when the store cannot answer and the rule does not say.
    pub on_store_error: OnStoreError,
    /// How many replicas share the limits: each enforces its part while the store is away (`local`). At least 1.
    pub replicas: u32,
    /// Bound of the memory store (and of the one that takes over from Redis), in keys. At least 1.
    pub memory_max_keys: usize,
    /// What every counter key starts with.
    pub key_prefix: String,
    /// Answer from memory while a denial is certain to stand.
    pub deny_cache: bool,
    /// Bound of the deny cache, in keys. At least 1.
    pub deny_cache_max_keys: usize,
    /// Let checks of one key that arrive together share a call.
    pub coalesce: bool,
    /// Take several hits in a call for keys in demand.
    pub lease: bool,
}

/// Where the process listens.
#[derive(Debug, Clone, PartialEq)]
pub struct ListenSettings {
    /// gRPC; not used if `grpc_uds` is set.
    pub grpc_addr: SocketAddr,
    /// gRPC on a unix socket instead.
    pub grpc_uds: Option<PathBuf>,
    /// TLS on the gRPC listener.
    pub grpc_tls: Option<ServerTls>,
    /// A connection is told to go away after this (± 10 %); `None` = never.
    pub grpc_max_connection_age: Option<Duration>,
    /// It is cut this much later; `None` = never.
    pub grpc_max_connection_age_grace: Option<Duration>,
    /// `/healthcheck`, `/json`.
    pub http_addr: SocketAddr,
    /// `/rlconfig`, `/metrics`, the console.
    pub admin_addr: SocketAddr,
    /// TLS on the admin listener.
    pub admin_tls: Option<ServerTls>,
    /// File with the bearer token of the admin API; without it the API answers loopback alone, and changes nothing.
    pub admin_token_file: Option<PathBuf>,
    /// A listener of its own for metrics; they are on the admin address anyway.
    pub prometheus: Option<PrometheusSettings>,
}

/// The listener for metrics alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrometheusSettings {
    /// Where.
    pub addr: SocketAddr,
    /// Starts with `/`.
    pub path: String,
}

/// What answers look like.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AnswerSettings {
    /// Limit, remaining and reset headers on every answer that has a limit (`LIMIT_RESPONSE_HEADERS_ENABLED`).
    pub limit_headers: Option<LimitHeaders>,
    /// The same as request headers, for the upstream (`LIMIT_REQUEST_HEADERS_ENABLED`).
    pub request_limit_headers: Option<LimitHeaders>,
    /// IETF `RateLimit` and `RateLimit-Policy` headers.
    pub ietf_headers: bool,
    /// A problem+json body on denials.
    pub problem_body: bool,
    /// Request and rule metadata in every answer's dynamic metadata (`RESPONSE_DYNAMIC_METADATA`).
    pub dynamic_metadata: bool,
    /// Nothing is ever denied: decisions are counted, the overall code is OK (`SHADOW_MODE`).
    pub shadow_mode: bool,
    /// Every rule is a quota rule (`QUOTA_MODE`).
    pub quota_mode: bool,
    /// A limit is near from this part of it on; above 0, at most 1.
    pub near_limit_ratio: f64,
}

/// Names of the headers that carry the tightest limit; valid header names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitHeaders {
    /// Hits in a window.
    pub limit: String,
    /// Hits that are left.
    pub remaining: String,
    /// Seconds until the quota is back, rounded up.
    pub reset: String,
}

impl Default for LimitHeaders {
    /// The names that envoyproxy/ratelimit uses.
    fn default() -> Self {
        Self {
            limit: "RateLimit-Limit".into(),
            remaining: "RateLimit-Remaining".into(),
            reset: "RateLimit-Reset".into(),
        }
    }
}

/// Logs, metrics and traces.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TelemetrySettings {
    /// How a log line looks.
    pub log_format: LogFormat,
    /// What is written: a level, or `tracing` directives; valid.
    pub log_level: String,
    /// Labels on every metric (`EXTRA_TAGS`); valid label names, sorted.
    pub extra_tags: BTreeMap<String, String>,
    /// Heavy hitters are kept for the admin API.
    pub top: bool,
    /// How the admin API shows values of descriptors.
    pub mask_values: MaskValues,
    /// Metrics are also sent to a statsd server.
    pub statsd: Option<StatsdSettings>,
    /// A span of each call; `None` = none.
    pub traces: Option<TraceSettings>,
}

/// How values of descriptors are shown by the API: they may be personal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MaskValues {
    /// As they are.
    #[default]
    Off,
    /// As a keyed hash that changes with every start of the process.
    Hash,
    /// The first four characters.
    Truncate,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// A statsd server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatsdSettings {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// How lines travel.
    pub transport: StatsdTransport,
    /// Tags are sent the DogStatsD way; otherwise they become parts of the name.
    pub dogstatsd: bool,
    /// How often changes are sent. At least 100 ms.
    pub flush_interval: Duration,
}

/// How statsd lines travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatsdTransport {
    /// Datagrams.
    Udp,
    /// A connection, as envoyproxy/ratelimit does it.
    Tcp,
}

/// Bounds of the process, and how it ends.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProcessLimits {
    /// Requests that are worked on at the same time; more are answered as `on_overload` says. At least 1.
    pub max_concurrent: usize,
    /// What a request above that gets.
    pub on_overload: OnOverload,
    /// gRPC connections at the same time. At least 1.
    pub max_connections: usize,
    /// How long a client may take over one step: a TLS handshake, a greeting, a request's head, its body.
    pub client_timeout: Duration,
    /// Requests that a leaky bucket holds back at the same time; more are denied. At least 1.
    pub max_delayed: usize,
    /// On SIGTERM: how long health says NOT_SERVING before connections are told to go away.
    pub drain_delay: Duration,
    /// How long answers that are under way may then take, and Redis to hear what it has missed.
    pub drain_timeout: Duration,
}

/// What a request gets that there is no room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnOverload {
    /// OK, uncounted.
    Allow,
    /// The gRPC error UNAVAILABLE: Envoy's own failure mode decides.
    #[default]
    Unavailable,
}

/// Every address of this machine.
pub(super) const fn any_address(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)
}

impl Default for ListenSettings {
    fn default() -> Self {
        Self {
            grpc_addr: any_address(0),
            grpc_uds: None,
            grpc_tls: None,
            grpc_max_connection_age: None,
            grpc_max_connection_age_grace: None,
            http_addr: any_address(0),
            admin_addr: any_address(0),
            admin_tls: None,
            admin_token_file: None,
            prometheus: None,
        }
    }
}
