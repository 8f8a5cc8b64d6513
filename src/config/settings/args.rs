//! The flags of `sluicegate serve`. Each is also an environment variable: its name in capitals, `_` for `-`.
//!
//! Defaults stand in [`Settings::default`] alone: a flag that is absent changes nothing there.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::model::AlgorithmKind;
use crate::rules::OnStoreError;

use super::errors::{Collector, SettingsErrors};
use super::{
    ClientTls, LimitHeaders, LogFormat, MaskValues, Notice, OnOverload, PrometheusSettings, RedisSettings, RedisTls,
    ServerTls, Settings, StoreKind, TraceSettings, values,
};

/// Flags of `serve`.
#[derive(Debug, Clone, Default, Args)]
pub struct ServeArgs {
    /// Rules: a file, or a directory with *.yaml files; may stand more than once. Watched for changes. Without any, a
    /// small built-in example is served
    #[arg(long, env, value_name = "PATH", value_delimiter = ',')]
    pub rules: Vec<PathBuf>,
    /// Algorithm of rules that name none [default: sliding_window]
    #[arg(long, env, value_name = "NAME", value_parser = values::algorithm)]
    pub default_algorithm: Option<AlgorithmKind>,
    /// Count denied hits too, where a rule does not say (leaky_bucket and concurrency never do) [default: false]
    #[arg(long, env, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", value_parser = values::boolean)]
    pub count_denied: Option<bool>,
    /// Count a descriptor's own hits even if they do not fit, on rules that requests ask first with 0 hits or with none of
    /// their own: costs that are known afterwards, such as tokens [default: false]
    #[arg(long, env, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", value_parser = values::boolean)]
    pub charge_after_peek: Option<bool>,
    /// Let the same domain stand in several files [default: false]
    #[arg(long, env = "MERGE_DOMAIN_CONFIG", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", value_parser = values::boolean)]
    pub merge_domains: Option<bool>,

    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    listen: ListenArgs,
    #[command(flatten)]
    answers: AnswerArgs,
    #[command(flatten)]
    process: ProcessArgs,
}

/// Where counters live.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Store")]
struct StoreArgs {
    /// Where counters live [default: redis if --redis-url is given, else memory]
    #[arg(long, env, value_name = "KIND", value_parser = values::store_kind)]
    store: Option<StoreKind>,
    /// redis://[user:password@]host:port[/db], rediss:// (TLS), redis-sentinel://host:port,…/master,
    /// redis-cluster://host:port,…, unix:///path
    #[arg(long, env, value_name = "URL", hide_env_values = true)]
    redis_url: Option<String>,
    /// A Redis of its own for limits with a window of one second
    #[arg(long, env = "REDIS_PERSECOND_URL", value_name = "URL", hide_env_values = true)]
    redis_per_second_url: Option<String>,
    /// Connections to each Redis server; commands are pipelined, a few are enough [default: 4]
    #[arg(long, env, value_name = "N", value_parser = values::at_least_one::<u16>)]
    redis_pool_size: Option<u16>,
    /// PEM file with the CA of Redis' certificate [default: the system's roots]
    #[arg(long, env = "REDIS_TLS_CACERT", value_name = "FILE")]
    redis_tls_ca: Option<PathBuf>,
    /// PEM file with our certificate for Redis
    #[arg(long, env = "REDIS_TLS_CLIENT_CERT", value_name = "FILE", requires = "redis_tls_key")]
    redis_tls_cert: Option<PathBuf>,
    /// PEM file with its private key
    #[arg(long, env = "REDIS_TLS_CLIENT_KEY", value_name = "FILE", requires = "redis_tls_cert")]
    redis_tls_key: Option<PathBuf>,
    /// Accept any name in Redis' certificate (it must still be signed by the CA) [default: false]
    #[arg(long, env = "REDIS_TLS_SKIP_HOSTNAME_VERIFICATION", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", value_parser = values::boolean)]
    redis_tls_skip_hostname: Option<bool>,
    /// The longest that a request waits for the store; keep it under Envoy's timeout, which is 20ms unless you set it
    /// [default: 15ms]
    #[arg(long, env, value_name = "DURATION", value_parser = values::positive_duration)]
    store_timeout: Option<Duration>,
    /// When the store cannot answer: count in this process (local), let pass (allow), or refuse (deny) [default: local]
    #[arg(long, env, value_name = "MODE", value_parser = values::on_store_error)]
    on_store_error: Option<OnStoreError>,
    /// How many replicas share the limits: while the store is away each enforces its part [default: 1]
    #[arg(long, env, value_name = "N", value_parser = values::at_least_one::<u32>)]
    replicas: Option<u32>,
    /// Most keys that are kept in memory [default: 1000000]
    #[arg(long, env, value_name = "N", value_parser = values::at_least_one::<u64>)]
    memory_max_keys: Option<u64>,
    /// What every counter key starts with [default: sg:]
    #[arg(long, env = "CACHE_KEY_PREFIX", value_name = "TEXT")]
    key_prefix: Option<String>,
    /// Answer from memory while a denial is certain to stand [default: on]
    #[arg(long, env, value_name = "BOOL", value_parser = values::boolean)]
    deny_cache: Option<bool>,
    /// Most keys whose denials are kept [default: 100000]
    #[arg(long, env, value_name = "N", value_parser = values::at_least_one::<u64>)]
    deny_cache_max_keys: Option<u64>,
    /// Let checks of one key that arrive together share a call [default: on]
    #[arg(long, env, value_name = "BOOL", value_parser = values::boolean)]
    coalesce: Option<bool>,
    /// Take several hits in one call for keys in demand; never passes a limit [default: on]
    #[arg(long, env, value_name = "BOOL", value_parser = values::boolean)]
    lease: Option<bool>,
}

/// Where the process listens.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Listeners")]
struct ListenArgs {
    /// gRPC: RateLimitService, Health, reflection [default: 0.0.0.0:8081]
    #[arg(long, env, value_name = "ADDRESS", value_parser = values::listen_address)]
    grpc_addr: Option<SocketAddr>,
    /// gRPC on this unix socket instead
    #[arg(long, env, value_name = "PATH", conflicts_with = "grpc_addr")]
    grpc_uds: Option<PathBuf>,
    /// HTTP: /healthcheck, /json [default: 0.0.0.0:8080]
    #[arg(long, env, value_name = "ADDRESS", value_parser = values::listen_address)]
    http_addr: Option<SocketAddr>,
    /// HTTP for operators: /rlconfig, /metrics, the console [default: 127.0.0.1:6070]
    #[arg(long, env, value_name = "ADDRESS", value_parser = values::listen_address)]
    admin_addr: Option<SocketAddr>,
    /// File with the bearer token of the admin API (/api/v1): needed for every change and for reading from elsewhere than
    /// loopback. Read again when it changes [default: none]
    #[arg(long, env, value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
    /// Keep the most frequent keys for the admin API [default: on]
    #[arg(long, env = "ADMIN_TOP", value_name = "BOOL", value_parser = values::boolean)]
    top: Option<bool>,
    /// How the admin API shows values of descriptors, which may be personal: off (as they are), hash or truncate
    /// [default: off]
    #[arg(long, env, value_name = "MODE", value_parser = values::mask_values)]
    mask_values: Option<MaskValues>,
    /// One more listener, for /metrics alone [default: none]
    #[arg(long, env, value_name = "ADDRESS", value_parser = values::listen_address)]
    prometheus_addr: Option<SocketAddr>,
    /// PEM file with the gRPC listener's certificate chain; turns TLS on. Read again when it changes
    #[arg(long, env = "GRPC_SERVER_TLS_CERT", value_name = "FILE", requires = "grpc_tls_key")]
    grpc_tls_cert: Option<PathBuf>,
    /// PEM file with its private key
    #[arg(long, env = "GRPC_SERVER_TLS_KEY", value_name = "FILE", requires = "grpc_tls_cert")]
    grpc_tls_key: Option<PathBuf>,
    /// PEM file with the CA that clients' certificates must come from; turns client certificates on
    #[arg(
        long,
        env = "GRPC_CLIENT_TLS_CACERT",
        value_name = "FILE",
        requires = "grpc_tls_cert"
    )]
    grpc_tls_client_ca: Option<PathBuf>,
    /// A name that clients' certificates must carry; may stand more than once, one of them is enough
    #[arg(
        long,
        env = "GRPC_CLIENT_TLS_SAN",
        value_name = "NAME",
        value_delimiter = ',',
        requires = "grpc_tls_client_ca"
    )]
    grpc_tls_client_san: Vec<String>,
    /// Tell a connection to go away after this long, ± 10 %; 0 = never [default: 0]
    #[arg(long, env, value_name = "DURATION", value_parser = values::duration)]
    grpc_max_connection_age: Option<Duration>,
    /// … and cut it this much later; 0 = never [default: 0]
    #[arg(long, env, value_name = "DURATION", value_parser = values::duration)]
    grpc_max_connection_age_grace: Option<Duration>,
}

/// What answers look like.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Answers")]
struct AnswerArgs {
    /// Add limit, remaining and reset headers to every answer that has a limit [default: false]
    #[arg(long, env = "LIMIT_RESPONSE_HEADERS_ENABLED", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", value_parser = values::boolean)]
    limit_headers: Option<bool>,
    /// Add the IETF draft's RateLimit and RateLimit-Policy headers [default: false]
    #[arg(long, env, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", value_parser = values::boolean)]
    ietf_headers: Option<bool>,
    /// Give denials a problem+json body that names the limit [default: on]
    #[arg(long, env, value_name = "BOOL", value_parser = values::boolean)]
    problem_body: Option<bool>,
    /// Give every answer dynamic metadata: the request's descriptors and the rules' metadata [default: false]
    #[arg(long, env = "RESPONSE_DYNAMIC_METADATA", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", value_parser = values::boolean)]
    dynamic_metadata: Option<bool>,
    /// Decide and count, but never deny [default: false]
    #[arg(long, env, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", value_parser = values::boolean)]
    shadow_mode: Option<bool>,
    /// Treat every rule as a quota: a request is over only if all its rules are [default: false]
    #[arg(long, env, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", value_parser = values::boolean)]
    quota_mode: Option<bool>,
    /// From this part of a limit on, metrics call it near [default: 0.8]
    #[arg(long, env, value_name = "RATIO", value_parser = values::ratio)]
    near_limit_ratio: Option<f64>,
}

/// The process.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Process")]
struct ProcessArgs {
    /// How log lines look [default: text]
    #[arg(long, env, value_name = "FORMAT", value_parser = values::log_format)]
    log_format: Option<LogFormat>,
    /// Least severe lines that are logged: error, warn, info, debug (what each request asks, and what applies), trace (of
    /// libraries errors only), or directives such as info,fred=debug [default: info]
    #[arg(long, env, value_name = "LEVEL", value_parser = values::log_level)]
    log_level: Option<String>,
    /// Send a span of each call by OTLP, as TRACING_… and OTEL_EXPORTER_OTLP_… say: variables that have no flags, listed
    /// by `sluicegate settings` [default: false]
    #[arg(long, env, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", value_parser = values::boolean)]
    tracing_enabled: Option<bool>,
    /// Requests that are worked on at the same time [default: 10000]
    #[arg(long, env, value_name = "N", value_parser = values::at_least_one::<u32>)]
    max_concurrent: Option<u32>,
    /// What requests above that get: OK (allow) or an error, so that Envoy's failure mode decides (unavailable)
    /// [default: unavailable]
    #[arg(long, env, value_name = "MODE", value_parser = values::on_overload)]
    on_overload: Option<OnOverload>,
    /// gRPC connections at the same time. At the bound a new one takes the place of one that has said nothing yet, or
    /// else is closed at once. Each needs a file descriptor: the limit of open files (ulimit -n) bounds it, too
    /// [default: 20000]
    #[arg(long, env, value_name = "N", value_parser = values::at_least_one::<u32>)]
    max_connections: Option<u32>,
    /// How long a client may take over one step: a TLS handshake, HTTP/2's greeting, a request's head, its body, taking a
    /// gRPC answer; and how long an HTTP/1 connection may be idle [default: 10s]
    #[arg(long, env, value_name = "DURATION", value_parser = values::positive_duration)]
    client_timeout: Option<Duration>,
    /// Requests that a leaky bucket holds back at the same time; more are denied [default: 10000]
    #[arg(long, env, value_name = "N", value_parser = values::at_least_one::<u32>)]
    max_delayed: Option<u32>,
    /// On SIGTERM: time between "not serving" in health and telling connections to go away [default: 0s]
    #[arg(long, env, value_name = "DURATION", value_parser = values::duration)]
    drain_delay: Option<Duration>,
    /// How long answers that are under way may then take [default: 10s]
    #[arg(long, env, value_name = "DURATION", value_parser = values::duration)]
    drain_timeout: Option<Duration>,
}

impl ServeArgs {
    /// Defaults overlaid with the flags that were given; and what is set without effect.
    ///
    /// # Errors
    /// Everything that is wrong beyond the syntax of single flags.
    pub fn into_settings(self) -> Result<(Settings, Vec<Notice>), SettingsErrors> {
        let mut errors = Collector::default();
        let mut settings = Settings::default();
        settings.rules.paths = self.rules;
        set(&mut settings.rules.default_algorithm, self.default_algorithm);
        set(&mut settings.rules.count_denied, self.count_denied);
        set(&mut settings.rules.charge_after_peek, self.charge_after_peek);
        set(&mut settings.rules.merge_domains, self.merge_domains);
        self.store.apply(&mut settings, &mut errors);
        self.listen.apply(&mut settings);
        self.answers.apply(&mut settings);
        let mut notices = Vec::new();
        if self.process.tracing_enabled == Some(true) {
            match TraceSettings::from_variables(super::variable) {
                Ok((traces, idle)) => (settings.telemetry.traces, notices) = (Some(traces), idle),
                Err(wrong) => errors.all(wrong),
            }
        }
        self.process.apply(&mut settings);
        errors.finish((settings, notices))
    }
}

impl StoreArgs {
    fn apply(self, settings: &mut Settings, errors: &mut Collector) {
        let tls = self.tls();
        let pool_size = self.redis_pool_size;
        let connect = |name: &str, url: Option<String>, errors: &mut Collector| {
            let url = url.filter(|url| !url.is_empty())?;
            match RedisSettings::from_url(&url) {
                Ok(mut redis) => {
                    set(&mut redis.pool_size, pool_size.map(usize::from));
                    if let Some(used) = &mut redis.tls {
                        *used = tls.clone();
                    }
                    Some(redis)
                }
                Err(problem) => {
                    errors.problem(name, problem);
                    None
                }
            }
        };
        let url_given = self.redis_url.as_deref().is_some_and(|url| !url.is_empty());
        let store = &mut settings.store;
        store.redis = connect("--redis-url", self.redis_url, errors);
        store.redis_per_second = connect("--redis-per-second-url", self.redis_per_second_url, errors);
        store.kind = self
            .store
            .unwrap_or(if url_given { StoreKind::Redis } else { StoreKind::Memory });
        match store.kind {
            StoreKind::Redis if !url_given => errors.problem(
                "--store redis",
                "needs --redis-url, for instance --redis-url redis://localhost:6379",
            ),
            StoreKind::Redis => {}
            StoreKind::Memory => {
                store.redis = None;
                store.redis_per_second = None;
            }
        }
        set(&mut store.timeout, self.store_timeout);
        set(&mut store.on_store_error, self.on_store_error);
        set(&mut store.replicas, self.replicas);
        set(&mut store.memory_max_keys, self.memory_max_keys.map(saturating_usize));
        set(&mut store.key_prefix, self.key_prefix);
        set(&mut store.deny_cache, self.deny_cache);
        set(
            &mut store.deny_cache_max_keys,
            self.deny_cache_max_keys.map(saturating_usize),
        );
        set(&mut store.coalesce, self.coalesce);
        set(&mut store.lease, self.lease);
    }

    fn tls(&self) -> RedisTls {
        RedisTls {
            client: ClientTls {
                ca: self.redis_tls_ca.clone(),
                identity: self.redis_tls_cert.clone().zip(self.redis_tls_key.clone()),
                server_name: None,
            },
            skip_hostname: self.redis_tls_skip_hostname.unwrap_or(false),
        }
    }
}

impl ListenArgs {
    fn apply(self, settings: &mut Settings) {
        let listen = &mut settings.listen;
        set(&mut listen.grpc_addr, self.grpc_addr);
        listen.grpc_uds = self.grpc_uds;
        set(&mut listen.http_addr, self.http_addr);
        set(&mut listen.admin_addr, self.admin_addr);
        listen.admin_token_file = self.admin_token_file;
        set(&mut settings.telemetry.top, self.top);
        set(&mut settings.telemetry.mask_values, self.mask_values);
        listen.prometheus = self.prometheus_addr.map(|addr| PrometheusSettings {
            addr,
            path: "/metrics".into(),
        });
        listen.grpc_tls = self.grpc_tls_cert.zip(self.grpc_tls_key).map(|(cert, key)| ServerTls {
            cert,
            key,
            client_ca: self.grpc_tls_client_ca,
            client_sans: self.grpc_tls_client_san,
        });
        let some = |age: Option<Duration>| age.filter(|age| !age.is_zero());
        listen.grpc_max_connection_age = some(self.grpc_max_connection_age);
        listen.grpc_max_connection_age_grace = some(self.grpc_max_connection_age_grace);
    }
}

impl AnswerArgs {
    fn apply(self, settings: &mut Settings) {
        let answers = &mut settings.answers;
        answers.limit_headers = self.limit_headers.unwrap_or(false).then(LimitHeaders::default);
        set(&mut answers.ietf_headers, self.ietf_headers);
        set(&mut answers.problem_body, self.problem_body);
        set(&mut answers.dynamic_metadata, self.dynamic_metadata);
        set(&mut answers.shadow_mode, self.shadow_mode);
        set(&mut answers.quota_mode, self.quota_mode);
        set(&mut answers.near_limit_ratio, self.near_limit_ratio);
    }
}

impl ProcessArgs {
    fn apply(self, settings: &mut Settings) {
        set(&mut settings.telemetry.log_format, self.log_format);
        set(&mut settings.telemetry.log_level, self.log_level);
        let limits = &mut settings.limits;
        let count = |n: Option<u32>| n.map(|n| saturating_usize(n.into()));
        set(&mut limits.max_concurrent, count(self.max_concurrent));
        set(&mut limits.on_overload, self.on_overload);
        set(&mut limits.max_connections, count(self.max_connections));
        set(&mut limits.client_timeout, self.client_timeout);
        set(&mut limits.max_delayed, count(self.max_delayed));
        set(&mut limits.drain_delay, self.drain_delay);
        set(&mut limits.drain_timeout, self.drain_timeout);
    }
}

fn set<T>(slot: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *slot = value;
    }
}

fn saturating_usize(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}
