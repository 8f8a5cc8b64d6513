//! The entries, by topic. Their order is that of `sluicegate settings` and of the documentation.

use super::super::compat::Compatibility::{self, Extended, Ignored, Native, Supported};
use super::setting::{Section, Setting, Topic};
use super::values;

/// Parses the text into a field of [`Settings`](super::Settings).
macro_rules! field {
    ($($path:ident).+, $parse:path) => {
        |settings, text| {
            settings.$($path).+ = $parse(text)?;
            Ok(())
        }
    };
}

/// The same for a field that is `None` when it is not set.
macro_rules! optional {
    ($($path:ident).+, $parse:path) => {
        |settings, text| {
            settings.$($path).+ = Some($parse(text)?);
            Ok(())
        }
    };
}

const fn v(variable: &'static str, default: &'static str, doc: &'static str, compat: Compatibility) -> Setting {
    Setting::new(variable, default, doc, compat)
}

const NO_MEMCACHED: Compatibility = Ignored("there is no memcached store; BACKEND_TYPE is redis or memory");
const PIPELINED: Compatibility = Ignored("commands are always pipelined, and one request is one round trip");
const NO_POOL: Compatibility = Ignored("connections are shared and never run out");
const STARTS_AT_ONCE: Compatibility =
    Ignored("the process serves without Redis at once (ON_STORE_ERROR) and connects in the background");
const OWN: Compatibility = Extended("a wrong value stops the start instead of being ignored");

/// All settings.
#[rustfmt::skip]
pub static SECTIONS: &[Section] = &[
    Section { topic: Topic::Rules, settings: &[
    v("RULES", "", "rules: a file, or a directory; may stand more than once. Watched for changes. Without any, a small built-in example is served", Native)
        .field(|settings, text| { settings.rules.paths.push(text.into()); Ok(()) })
        .flag("rules", "PATH").many().serve_only(),
    v("CONFIG_TYPE", "FILE", "FILE or GRPC_XDS_SOTW", Supported),
    v("RUNTIME_ROOT", "/srv/runtime_data/current", "rules are in RUNTIME_ROOT/RUNTIME_SUBDIRECTORY/RUNTIME_APPDIRECTORY", Supported),
    v("RUNTIME_SUBDIRECTORY", "", "see RUNTIME_ROOT", Supported),
    v("RUNTIME_APPDIRECTORY", "config", "see RUNTIME_ROOT", Supported),
    v("RUNTIME_IGNOREDOTFILES", "false", "leave out files whose name starts with a dot", Extended("a ConfigMap's ..data is never read twice (#206)"))
        .field(field!(rules.ignore_dot_files, values::boolean)),
    v("RUNTIME_WATCH_ROOT", "true", "whether a swap of RUNTIME_ROOT itself, or changes below it, cause a reload", Extended("either way both do (#367)")),
    v("FORCE_START_WITHOUT_INITIAL_CONFIG", "false", "serve before the first rules have come", Supported)
        .field(field!(rules.force_start, values::boolean)),
    v("MERGE_DOMAIN_CONFIG", "false", "one domain may stand in several files", Supported)
        .field(field!(rules.merge_domains, values::boolean))
        .flag("merge-domains", "BOOL"),
    v("HEALTHY_WITH_AT_LEAST_ONE_CONFIG_LOADED", "false", "healthy only while there is at least one domain", Supported)
        .field(field!(rules.healthy_needs_domain, values::boolean)),
    v("DEFAULT_ALGORITHM", "sliding_window", "algorithm of rules that name none; fixed_window is what envoyproxy/ratelimit does", Native)
        .field(field!(rules.default_algorithm, values::algorithm))
        .flag("default-algorithm", "NAME"),
    v("COUNT_DENIED", "false", "count denied hits too, where a rule does not say (leaky_bucket and concurrency never do)", Native)
        .field(field!(rules.count_denied, values::boolean))
        .flag("count-denied", "BOOL"),
    v("CHARGE_AFTER_PEEK", "true", "count a descriptor's own hits even if they do not fit, on rules that requests ask first with 0 hits or with none of their own (costs known afterwards)", Native)
        .field(field!(rules.charge_after_peek, values::boolean))
        .flag("charge-after-peek", "BOOL").serve_default("false"),
    ] },
    Section { topic: Topic::Listeners, settings: &[
    v("GRPC_ADDR", "0.0.0.0:8081", "the gRPC listener: RateLimitService, ext_authz, Health, reflection", Native)
        .field(field!(listen.grpc_addr, values::listen_address)).flag("grpc-addr", "ADDRESS").serve_only(),
    v("HTTP_ADDR", "0.0.0.0:8080", "HTTP: /healthcheck, /json", Native)
        .field(field!(listen.http_addr, values::listen_address)).flag("http-addr", "ADDRESS").serve_only(),
    v("ADMIN_ADDR", "127.0.0.1:6070", "HTTP for operators: /rlconfig, /metrics, the console", Native)
        .field(field!(listen.admin_addr, values::listen_address)).flag("admin-addr", "ADDRESS").serve_only(),
    v("HOST", "0.0.0.0", "address of /healthcheck and /json", Supported),
    v("PORT", "8080", "its port", Supported),
    v("DEBUG_HOST", "0.0.0.0", "address of /rlconfig, /stats, /metrics and the console", Supported),
    v("DEBUG_PORT", "6070", "its port", Supported),
    v("GRPC_HOST", "0.0.0.0", "address of gRPC", Supported),
    v("GRPC_PORT", "8081", "its port", Supported),
    v("GRPC_UDS", "", "unix socket for gRPC, instead of address and port", Supported)
        .field(optional!(listen.grpc_uds, values::path))
        .flag("grpc-uds", "PATH").conflicts_with("grpc-addr"),
    v("GRPC_MAX_CONNECTION_AGE", "24h", "a connection is told to go away after this, ± 10 %; 0 = never", Supported)
        .field(field!(listen.grpc_max_connection_age, values::age))
        .flag("grpc-max-connection-age", "DURATION").serve_default("0"),
    v("GRPC_MAX_CONNECTION_AGE_GRACE", "1h", "how much later it is cut; 0 = never", Supported)
        .field(field!(listen.grpc_max_connection_age_grace, values::age))
        .flag("grpc-max-connection-age-grace", "DURATION").serve_default("0"),
    v("GRPC_SERVER_USE_TLS", "false", "TLS on gRPC", Supported),
    v("GRPC_SERVER_TLS_CERT", "", "PEM file: the gRPC listener's certificate chain. Read again when it changes", Extended("need not lie beside its key; any change is seen"))
        .flag("grpc-tls-cert", "FILE").requires("grpc-tls-key"),
    v("GRPC_SERVER_TLS_KEY", "", "PEM file: the key of the gRPC listener's certificate", Supported)
        .flag("grpc-tls-key", "FILE").requires("grpc-tls-cert"),
    v("GRPC_CLIENT_TLS_CACERT", "", "PEM file: CA of clients' certificates; clients need one then", Extended("read again when it changes; the system's own roots are not trusted beside it"))
        .flag("grpc-tls-client-ca", "FILE").requires("grpc-tls-cert"),
    v("GRPC_SERVER_TLS_CA_CERT", "", "the same, as Envoy Gateway calls it", Extended("envoyproxy/ratelimit does not read it, so that clients need no certificate")),
    v("GRPC_CLIENT_TLS_SAN", "", "name that a client's certificate must carry", Extended("also URIs (SPIFFE), addresses, and several, separated by commas"))
        .flag("grpc-tls-client-san", "NAME").many().requires("grpc-tls-client-ca"),
    ] },
    Section { topic: Topic::Logs, settings: &[
    v("LOG_LEVEL", "warn", "least severe lines that are logged: error, warn, info, debug (what each request asks, and what applies), trace (of libraries errors only), or directives such as info,fred=debug", Extended("also directives such as info,fred=debug"))
        .field(field!(telemetry.log_level, values::log_level))
        .flag("log-level", "LEVEL").serve_default("info"),
    v("LOG_FORMAT", "text", "how log lines look: text or json", Extended("JSON has its @timestamp, level and @message, and fields beside them"))
        .field(field!(telemetry.log_format, values::log_format))
        .flag("log-format", "FORMAT"),
    ] },
    Section { topic: Topic::ControlPlane, settings: &[
    v("CONFIG_GRPC_XDS_SERVER_URL", "localhost:18000", "control plane, host:port", Supported),
    v("CONFIG_GRPC_XDS_NODE_ID", "default", "our node id", Supported),
    v("CONFIG_GRPC_XDS_NODE_METADATA", "", "our node's metadata: key=value,key=value", Extended("what is no pair is an error")),
    v("CONFIG_GRPC_XDS_CLIENT_ADDITIONAL_HEADERS", "", "headers of the stream: name:value,name:value", Supported)
        .secret(),
    v("CONFIG_GRPC_XDS_SERVER_USE_TLS", "false", "TLS to the control plane", Supported),
    v("CONFIG_GRPC_XDS_CLIENT_TLS_CERT", "", "PEM file: our certificate for it", Extended("read again when it changes")),
    v("CONFIG_GRPC_XDS_CLIENT_TLS_KEY", "", "PEM file: its key", Extended("read again when it changes")),
    v("CONFIG_GRPC_XDS_SERVER_TLS_CACERT", "", "PEM file: CA of its certificate; without one the system's roots", Extended("read again when it changes; the system's roots are not trusted beside it")),
    v("CONFIG_GRPC_XDS_SERVER_TLS_SAN", "", "name that its certificate carries, if not the host's", Supported),
    v("XDS_CLIENT_BACKOFF_INITIAL_INTERVAL", "500ms", "wait before the first new attempt; doubles each time", Extended("10s in envoyproxy/ratelimit")),
    v("XDS_CLIENT_BACKOFF_MAX_INTERVAL", "30s", "longest wait", Extended("60s in envoyproxy/ratelimit")),
    v("XDS_CLIENT_BACKOFF_JITTER", "true", "a random part of each wait is left out", Supported),
    v("XDS_CLIENT_BACKOFF_RANDOM_FACTOR", "0.5", "factor of the wait", Ignored("the wait doubles; jitter takes up to half of it")),
    v("CONFIG_GRPC_XDS_SERVER_CONNECT_RETRY_INTERVAL", "3s", "wait between attempts to open a stream", Ignored("XDS_CLIENT_BACKOFF_… holds for every attempt")),
    v("XDS_CLIENT_MAX_MSG_SIZE_IN_BYTES", "16777216", "largest message of the control plane", Extended("4 MiB in envoyproxy/ratelimit")),
    ] },
    Section { topic: Topic::Store, settings: &[
    v("STORE", "redis if --redis-url is given, else memory", "where counters live: memory or redis", Native)
        .flag("store", "KIND").serve_only(),
    v("BACKEND_TYPE", "redis if REDIS_URL is set, else memory", "redis or memory", Extended("a store in memory (#314, #315); no memcache")),
    v("REDIS_URL", "", "host:port, a socket's path, master,host:port,… or host:port,… (each may be redis://user:password@host:port); or redis:// rediss:// redis-sentinel:// redis-cluster:// unix://", Extended("URLs; without one counters live in memory instead of the start failing"))
        .flag("redis-url", "URL").secret().serve_doc("redis://[user:password@]host:port[/db], rediss:// (TLS), redis-sentinel://host:port,…/master, redis-cluster://host:port,…, unix:///path"),
    v("REDIS_SOCKET_TYPE", "by REDIS_URL", "tcp or unix", Extended("need not be set")),
    v("REDIS_TYPE", "SINGLE", "SINGLE, SENTINEL or CLUSTER", Supported),
    v("REDIS_POOL_SIZE", "4", "connections to each Redis server; commands are pipelined, a few are enough", Extended("shared and pipelined, so that a few are enough"))
        .flag("redis-pool-size", "N"),
    v("REDIS_AUTH", "", "password or user:password", Extended("never logged"))
        .secret(),
    v("REDIS_AUTH_FILE", "", "file with password or user:password, in place of REDIS_AUTH and of the URL's. Read again when it changes, so that a rotated password needs no restart", Native)
        .flag("redis-auth-file", "FILE"),
    v("REDIS_SENTINEL_AUTH", "", "the same for sentinels", Supported)
        .secret(),
    v("REDIS_SENTINEL_AUTH_FILE", "", "as REDIS_AUTH_FILE, for sentinels", Native)
        .flag("redis-sentinel-auth-file", "FILE"),
    v("REDIS_TLS", "false", "TLS to Redis", Supported),
    v("REDIS_TLS_CACERT", "", "PEM file: CA of Redis' certificate; without one the system's roots", Supported)
        .flag("redis-tls-ca", "FILE"),
    v("REDIS_TLS_CLIENT_CERT", "", "PEM file: our certificate for Redis", Supported)
        .flag("redis-tls-cert", "FILE").requires("redis-tls-key"),
    v("REDIS_TLS_CLIENT_KEY", "", "PEM file: the key of our certificate for Redis", Supported)
        .flag("redis-tls-key", "FILE").requires("redis-tls-cert"),
    v("REDIS_TLS_SKIP_HOSTNAME_VERIFICATION", "false", "accept any name in Redis' certificate (it must still be signed by the CA)", Supported)
        .flag("redis-tls-skip-hostname", "BOOL"),
    v("REDIS_TIMEOUT", "1s", "how long connecting may take", Extended("10s in envoyproxy/ratelimit; a request never waits that long: STORE_TIMEOUT (#462)")),
    v("REDIS_HEALTH_CHECK_ACTIVE_CONNECTION", "false", "not healthy without a connection to Redis", Supported),
    v("REDIS_PERSECOND", "false", "a Redis of its own for limits per second", Supported),
    v("REDIS_PERSECOND_URL", "", "as REDIS_URL", Supported)
        .flag("redis-per-second-url", "URL").secret().serve_doc("a Redis of its own for limits with a window of one second"),
    v("REDIS_PERSECOND_SOCKET_TYPE", "by REDIS_PERSECOND_URL", "as REDIS_SOCKET_TYPE", Supported),
    v("REDIS_PERSECOND_TYPE", "SINGLE", "as REDIS_TYPE", Supported),
    v("REDIS_PERSECOND_POOL_SIZE", "4", "as REDIS_POOL_SIZE", Supported),
    v("REDIS_PERSECOND_AUTH", "", "as REDIS_AUTH", Supported)
        .secret(),
    v("REDIS_PERSECOND_AUTH_FILE", "", "as REDIS_AUTH_FILE", Native)
        .flag("redis-per-second-auth-file", "FILE"),
    v("REDIS_PERSECOND_SENTINEL_AUTH", "", "as REDIS_SENTINEL_AUTH", Supported)
        .secret(),
    v("REDIS_PERSECOND_SENTINEL_AUTH_FILE", "", "as REDIS_SENTINEL_AUTH_FILE", Native)
        .flag("redis-per-second-sentinel-auth-file", "FILE"),
    v("REDIS_PERSECOND_TLS", "false", "as REDIS_TLS; the files are the same", Supported),
    v("REDIS_PERSECOND_TIMEOUT", "1s", "as REDIS_TIMEOUT", Supported),
    v("REDIS_PIPELINE_WINDOW", "0", "how long commands are gathered", PIPELINED),
    v("REDIS_PIPELINE_LIMIT", "0", "how many commands are gathered", PIPELINED),
    v("REDIS_CLUSTER_PIPELINE_PARALLELISM", "1", "groups of commands at a time in a cluster", PIPELINED),
    v("REDIS_PERSECOND_PIPELINE_WINDOW", "0", "as REDIS_PIPELINE_WINDOW", PIPELINED),
    v("REDIS_PERSECOND_PIPELINE_LIMIT", "0", "as REDIS_PIPELINE_LIMIT", PIPELINED),
    v("REDIS_PERSECOND_CLUSTER_PIPELINE_PARALLELISM", "1", "as REDIS_CLUSTER_PIPELINE_PARALLELISM", PIPELINED),
    v("REDIS_POOL_ON_EMPTY_BEHAVIOR", "WAIT", "what to do when all connections are in use", NO_POOL),
    v("REDIS_PERSECOND_POOL_ON_EMPTY_BEHAVIOR", "WAIT", "as REDIS_POOL_ON_EMPTY_BEHAVIOR", NO_POOL),
    v("REDIS_POOL_ON_EMPTY_WAIT_DURATION", "1s", "how long to wait before doing it", NO_POOL),
    v("REDIS_PERSECOND_POOL_ON_EMPTY_WAIT_DURATION", "1s", "as REDIS_POOL_ON_EMPTY_WAIT_DURATION", NO_POOL),
    v("REDIS_STARTUP_INITIAL_INTERVAL", "1s", "wait between attempts to reach Redis at start", STARTS_AT_ONCE),
    v("REDIS_STARTUP_MAX_INTERVAL", "30s", "its bound", STARTS_AT_ONCE),
    v("REDIS_STARTUP_MAX_ELAPSED_TIME", "0", "when to give up", STARTS_AT_ONCE),
    v("STORE_TIMEOUT", "15ms", "the longest that a request waits for the store; keep it under Envoy's timeout, which is 20ms unless you set it", Native)
        .field(field!(store.timeout, values::positive_duration))
        .flag("store-timeout", "DURATION"),
    v("ON_STORE_ERROR", "local", "when the store cannot answer: count in this process (local), let pass (allow), or refuse (deny)", Native)
        .field(field!(store.on_store_error, values::on_store_error))
        .flag("on-store-error", "MODE"),
    v("REPLICAS", "1", "how many replicas share the limits: while the store is away each enforces its part", Native)
        .field(field!(store.replicas, values::at_least_one))
        .flag("replicas", "N"),
    v("MEMORY_MAX_KEYS", "1000000", "most keys that are kept in memory", Native)
        .field(field!(store.memory_max_keys, values::at_least_one))
        .flag("memory-max-keys", "N"),
    v("DENY_CACHE", "true", "answer from memory while a denial is certain to stand", Native)
        .field(field!(store.deny_cache, values::boolean))
        .flag("deny-cache", "BOOL"),
    v("DENY_CACHE_MAX_KEYS", "100000", "most keys whose denials are kept", Native)
        .field(field!(store.deny_cache_max_keys, values::at_least_one))
        .flag("deny-cache-max-keys", "N"),
    v("COALESCE", "true", "let checks of one key that arrive together share a call", Native)
        .field(field!(store.coalesce, values::boolean))
        .flag("coalesce", "BOOL"),
    v("LEASE", "true", "take several hits in one call for keys in demand; never passes a limit", Native)
        .field(field!(store.lease, values::boolean))
        .flag("lease", "BOOL"),
    ] },
    Section { topic: Topic::Counting, settings: &[
    v("CACHE_KEY_PREFIX", "sg:", "what every counter key starts with", Supported)
        .field(field!(store.key_prefix, values::text))
        .flag("key-prefix", "TEXT"),
    v("LOCAL_CACHE_SIZE_IN_BYTES", "0", "memory for denials that are certain, at least 524288 (128 bytes a key); 0 = the default, 100000 keys", Extended("on by default, and exact: it ends when the denial does")),
    v("NEAR_LIMIT_RATIO", "0.8", "from this part of a limit on, metrics call it near", Supported)
        .field(field!(answers.near_limit_ratio, values::ratio))
        .flag("near-limit-ratio", "RATIO"),
    v("EXPIRATION_JITTER_MAX_SECONDS", "300", "spreads the expiry of keys", Ignored("keys live as long as their state means something, which spreads by itself")),
    v("STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT", "true", "whether a denied request leaves counters alone", Extended("always, also across descriptors (#348, #427, #1060, #185); false has no effect: see COUNT_DENIED")),
    v("SHADOW_MODE", "false", "decide and count, but never deny", Supported)
        .field(field!(answers.shadow_mode, values::boolean))
        .flag("shadow-mode", "BOOL"),
    v("QUOTA_MODE", "false", "every rule is a quota: over only if all are", Extended("a descriptor without a rule is no quota; in envoyproxy/ratelimit it lets any request pass"))
        .field(field!(answers.quota_mode, values::boolean))
        .flag("quota-mode", "BOOL"),
    ] },
    Section { topic: Topic::Answers, settings: &[
    v("LIMIT_RESPONSE_HEADERS_ENABLED", "false", "limit, remaining and reset headers on every answer that has a limit", Supported)
        .field(field!(answers.limit_headers, values::limit_headers))
        .flag("limit-headers", "BOOL"),
    v("LIMIT_LIMIT_HEADER", "RateLimit-Limit", "name of the first", Supported),
    v("LIMIT_REMAINING_HEADER", "RateLimit-Remaining", "name of the second", Supported),
    v("LIMIT_RESET_HEADER", "RateLimit-Reset", "name of the third", Supported),
    v("LIMIT_REQUEST_HEADERS_ENABLED", "false", "the same three headers on the request, for the upstream", Supported)
        .field(field!(answers.request_limit_headers, values::limit_headers))
        .flag("request-limit-headers", "BOOL"),
    v("LIMIT_REQUEST_LIMIT_HEADER", "RateLimit-Limit", "name of the first of them", Supported),
    v("LIMIT_REQUEST_REMAINING_HEADER", "RateLimit-Remaining", "name of the second of them", Supported),
    v("LIMIT_REQUEST_RESET_HEADER", "RateLimit-Reset", "name of the third of them", Supported),
    v("RESPONSE_DYNAMIC_METADATA", "false", "dynamic metadata in every answer: the request's descriptors and the rules' metadata", Extended("on a denial the rule that fired is always in it (#509)"))
        .field(field!(answers.dynamic_metadata, values::boolean))
        .flag("dynamic-metadata", "BOOL"),
    v("IETF_HEADERS", "false", "RateLimit and RateLimit-Policy headers of the IETF draft", Native)
        .field(field!(answers.ietf_headers, values::boolean))
        .flag("ietf-headers", "BOOL"),
    v("PROBLEM_BODY", "true", "a problem+json body on denials, which names the limit", Native)
        .field(field!(answers.problem_body, values::boolean))
        .flag("problem-body", "BOOL"),
    ] },
    Section { topic: Topic::Metrics, settings: &[
    v("USE_STATSD", "false", "send metrics to statsd", Extended("true in envoyproxy/ratelimit; must be asked for, beside Prometheus if wanted")),
    v("USE_DOG_STATSD", "false", "the same with DogStatsD tags", Supported),
    v("STATSD_HOST", "localhost", "where to", Supported),
    v("STATSD_PORT", "8125", "which port", Supported),
    v("STATSD_PROTOCOL", "tcp", "tcp or udp (udp with USE_DOG_STATSD)", Supported),
    v("STATS_FLUSH_INTERVAL", "10s", "how often", Supported),
    v("USE_DOG_STATSD_MOGRIFIERS", "", "rewriting of names into tags", Ignored("domain and keys are tags already")),
    v("EXTRA_TAGS", "", "labels of every metric that has none of that name: name:value,name:value", Supported)
        .field(field!(telemetry.extra_tags, values::tags)),
    v("DISABLE_STATS", "false", "neither statsd nor a listener for metrics; /metrics stays on the debug port", Supported),
    v("USE_PROMETHEUS", "false", "a listener for metrics alone", Extended("/metrics is on the debug port too")),
    v("PROMETHEUS_ADDR", ":9090", "its address", Supported)
        .flag("prometheus-addr", "ADDRESS").serve_default("").serve_doc("one more listener, for /metrics alone"),
    v("PROMETHEUS_PATH", "/metrics", "its path", Supported),
    v("PROMETHEUS_MAPPER_YAML", "", "names and labels of metrics", Ignored("the names and labels of the default mapping are built in")),
    v("PROMETHEUS_RESPONSE_TIME_AS_MILLISECONDS", "false", "response times in ms", Ignored("seconds, as the metric's name says")),
    ] },
    Section { topic: Topic::Traces, settings: &[
    v("TRACING_ENABLED", "false", "send a span of each call by OTLP; what follows needs it", Extended("ext_authz too; spans say code and rule, never values of descriptors"))
        .flag("tracing-enabled", "BOOL").serve_doc("send a span of each call by OTLP, as TRACING_… and OTEL_EXPORTER_OTLP_… say: variables that have no flags, listed by `sluicegate settings`"),
    v("TRACING_SERVICE_NAME", "RateLimit", "service.name of spans", Supported),
    v("TRACING_SERVICE_NAMESPACE", "", "service.namespace of spans", Supported),
    v("TRACING_SERVICE_INSTANCE_ID", "by chance: a UUID", "service.instance.id of spans; best the pod's name", Supported),
    v("TRACING_EXPORTER_PROTOCOL", "http", "http (protobuf) or grpc", Supported),
    v("TRACING_SAMPLING_RATE", "1", "part of the traces that is sampled, 0 to 1; a caller's own decision goes before it", Extended("a value beyond these stops the start")),
    v("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318 by http, http://localhost:4317 by grpc", "collector: http:// or https://, host and port; by http, spans go to /v1/traces below it", Extended("https in envoyproxy/ratelimit if not set; a wrong value stops the start")),
    v("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "", "collector of traces; by http with the whole path", OWN),
    v("OTEL_EXPORTER_OTLP_PROTOCOL", "", "http/protobuf or grpc, where TRACING_EXPORTER_PROTOCOL is not set", Extended("envoyproxy/ratelimit does not read it")),
    v("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "", "the same for traces", Extended("envoyproxy/ratelimit does not read it")),
    v("OTEL_EXPORTER_OTLP_INSECURE", "", "true: no TLS, false: TLS, whatever the endpoint begins with", OWN),
    v("OTEL_EXPORTER_OTLP_TRACES_INSECURE", "", "the same for traces", OWN),
    v("OTEL_EXPORTER_OTLP_HEADERS", "", "headers for the collector: name=value,name=value, values percent-encoded; never logged", OWN)
        .secret(),
    v("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "", "the same for traces, instead", OWN)
        .secret(),
    v("OTEL_EXPORTER_OTLP_COMPRESSION", "none", "gzip or none", OWN),
    v("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "", "the same for traces", OWN),
    v("OTEL_EXPORTER_OTLP_TIMEOUT", "10000", "milliseconds that sending may take, with all attempts", OWN),
    v("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "", "the same for traces", OWN),
    v("OTEL_EXPORTER_OTLP_CERTIFICATE", "", "PEM file: CA of the collector's certificate; without one the system's roots", Extended("read again when it changes; a wrong value stops the start")),
    v("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "", "the same for traces", Extended("the same")),
    v("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "", "PEM file: our certificate for it", Extended("the same")),
    v("OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", "", "the same for traces", Extended("the same")),
    v("OTEL_EXPORTER_OTLP_CLIENT_KEY", "", "PEM file: its key", Extended("the same")),
    v("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "", "the same for traces", Extended("the same")),
    v("OTEL_BSP_SCHEDULE_DELAY", "5000", "milliseconds that a span waits for others", OWN),
    v("OTEL_BSP_MAX_QUEUE_SIZE", "2048", "spans that wait at most; more are dropped and counted", OWN),
    v("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "512", "spans that are sent together at most", OWN),
    v("OTEL_RESOURCE_ATTRIBUTES", "", "more of what spans say of where they come from: name=value,name=value, values percent-encoded", OWN),
    ] },
    Section { topic: Topic::Memcached, settings: &[
    v("MEMCACHE_HOST_PORT", "", "memcached servers", NO_MEMCACHED),
    v("MEMCACHE_MAX_IDLE_CONNS", "2", "connections to them", NO_MEMCACHED),
    v("MEMCACHE_SRV", "", "SRV record that names them", NO_MEMCACHED),
    v("MEMCACHE_SRV_REFRESH", "0", "how often it is asked", NO_MEMCACHED),
    v("MEMCACHE_TLS", "false", "TLS to them", NO_MEMCACHED),
    v("MEMCACHE_TLS_CLIENT_CERT", "", "our certificate", NO_MEMCACHED),
    v("MEMCACHE_TLS_CLIENT_KEY", "", "its key", NO_MEMCACHED),
    v("MEMCACHE_TLS_CACERT", "", "their CA", NO_MEMCACHED),
    v("MEMCACHE_TLS_SKIP_HOSTNAME_VERIFICATION", "false", "accept any name", NO_MEMCACHED),
    ] },
    Section { topic: Topic::Process, settings: &[
    v("ADMIN_TOKEN_FILE", "", "file with the bearer token of the admin API (/api/v1): needed for every change and for reading from elsewhere than loopback. Read again when it changes", Native)
        .field(optional!(listen.admin_token_file, values::path))
        .flag("admin-token-file", "FILE"),
    v("ADMIN_TLS_CERT", "", "PEM file: the admin listener's certificate chain; the port speaks TLS alone then, also for probes and scrapes. Read again when it changes", Native)
        .flag("admin-tls-cert", "FILE").requires("admin-tls-key"),
    v("ADMIN_TLS_KEY", "", "PEM file: the key of the admin listener's certificate", Native)
        .flag("admin-tls-key", "FILE").requires("admin-tls-cert"),
    v("ADMIN_TOP", "true", "keep the most frequent keys for the admin API", Native)
        .field(field!(telemetry.top, values::boolean))
        .flag("top", "BOOL"),
    v("MASK_VALUES", "off", "how the admin API shows values of descriptors, which may be personal: off (as they are), hash or truncate", Native)
        .field(field!(telemetry.mask_values, values::mask_values))
        .flag("mask-values", "MODE"),
    v("MAX_CONCURRENT", "10000", "requests that are worked on at the same time", Native)
        .field(field!(limits.max_concurrent, values::at_least_one))
        .flag("max-concurrent", "N"),
    v("ON_OVERLOAD", "unavailable", "what requests above that get: OK (allow) or an error, so that Envoy's failure mode decides (unavailable)", Native)
        .field(field!(limits.on_overload, values::on_overload))
        .flag("on-overload", "MODE"),
    v("MAX_CONNECTIONS", "20000", "gRPC connections at the same time. At the bound a new one takes the place of one that has sent nothing yet, or else is closed at once. Each needs a file descriptor: the limit of open files (ulimit -n) bounds it, too", Native)
        .field(field!(limits.max_connections, values::at_least_one))
        .flag("max-connections", "N"),
    v("CLIENT_TIMEOUT", "10s", "how long a client may take over one step: a TLS handshake, the HTTP/2 preface, a request's head, its body, reading a gRPC answer; and how long an HTTP/1 connection may be idle", Native)
        .field(field!(limits.client_timeout, values::positive_duration))
        .flag("client-timeout", "DURATION"),
    v("MAX_DELAYED", "10000", "requests that a leaky bucket holds back at the same time; more are denied", Native)
        .field(field!(limits.max_delayed, values::at_least_one))
        .flag("max-delayed", "N"),
    v("DRAIN_DELAY", "0s", "on SIGTERM: time between \"not serving\" and telling connections to go away", Native)
        .field(field!(limits.drain_delay, values::duration))
        .flag("drain-delay", "DURATION"),
    v("DRAIN_TIMEOUT", "10s", "how long answers that are under way may then take, and Redis to hear what it has missed", Native)
        .field(field!(limits.drain_timeout, values::duration))
        .flag("drain-timeout", "DURATION"),
    ] },
];
