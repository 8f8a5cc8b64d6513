//! The composition root: the only module that names concrete types. Everything that can fail, fails in
//! [`App::bind`], before anything serves.

mod drain;
mod error;
mod files;
mod link_log;
mod listen;
mod rules;
mod stores;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admin::Health;
use crate::admin::http::{self, Admin};
use crate::admin::json::JsonService;
use crate::api::{self, Api, Token};
use crate::config::settings::{AnswerSettings, Settings, StoreSettings, TelemetrySettings};
use crate::engine::{Engine, EngineOptions};
use crate::mapping::FailureMode;
use crate::model::{Clock, MonotonicClock};
use crate::net::background::BackgroundRuntime;
use crate::net::grpc::PortOptions;
use crate::net::http::{HttpPortOptions, serve as serve_http};
use crate::net::http2::ConnectionOptions;
use crate::rules::OnStoreError;
use crate::service::AnswerOptions;
use crate::service::authz::AuthzService;
use crate::service::convert::RequestBounds;
use crate::service::rlqs::QuotaService;
use crate::service::rls::RateLimitService;
use crate::service::server::GrpcServer;
use crate::telemetry::statsd::Statsd;
use crate::telemetry::traces::{Export, Traces};
use crate::telemetry::{Activity, Metrics, logs};

pub use error::AppError;
use listen::{AdminListener, GrpcListener};
use rules::RulesFeed;

/// Where a bound process can be reached (with the real ports where 0 was asked for).
#[derive(Debug, Clone)]
pub struct Addresses {
    /// gRPC; `None` on a unix socket.
    pub grpc: Option<SocketAddr>,
    /// `/healthcheck`, `/json`.
    pub http: SocketAddr,
    /// `/metrics`, `/rlconfig`.
    pub admin: SocketAddr,
    /// Metrics alone.
    pub prometheus: Option<SocketAddr>,
}

/// Between two looks at what passes uncounted.
const UNCOUNTED_INTERVAL: Duration = Duration::from_secs(5);

/// A process that listens but does not serve yet.
pub struct App {
    settings: Settings,
    grpc_listener: GrpcListener,
    http_listener: TcpListener,
    admin_listener: AdminListener,
    prometheus_listener: Option<TcpListener>,
    grpc: GrpcServer,
    shares: files::Shares,
    json: JsonService,
    quota: QuotaService,
    engine: Arc<Engine>,
    metrics: Arc<Metrics>,
    activity: Arc<Activity>,
    clock: Arc<dyn Clock>,
    token: Option<Token>,
    health: Health,
    rules: RulesFeed,
    background: stores::Background,
    stop: CancellationToken,
    spans: Option<Export>,
}

impl App {
    /// Loads the rules, opens the store and takes all ports.
    ///
    /// # Errors
    /// [`AppError`] says what is wrong and which setting to change.
    pub async fn bind(settings: Settings) -> Result<Self, AppError> {
        let shares = files::share(settings.limits.max_connections);
        let metrics = Arc::new(Metrics::with_tags(&settings.telemetry.extra_tags)?);
        let clock: Arc<dyn Clock> = Arc::new(MonotonicClock::new());
        let listen = &settings.listen;
        let grpc_listener = GrpcListener::bind(listen).await?;
        let http_listener = listen::tcp(listen.http_addr, "HTTP", "--http-addr, or HOST and PORT")?;
        let admin_listener = AdminListener::bind(listen)?;
        let prometheus_listener = listen::prometheus(listen)?;
        let token = listen.admin_token_file.as_deref().map(open_token).transpose()?;
        let activity = Arc::new(Activity::new(settings.telemetry.top, Arc::clone(&clock)));
        let open_redis = stores::opener(&settings.store);
        let rules = RulesFeed::open(&settings.rules, Arc::clone(&metrics), Arc::clone(&activity), open_redis)?;
        let stack = stores::open(&settings, &metrics, &clock)?;
        let engine = Engine::new(
            stack.store,
            stack.fallback,
            engine_options(&settings),
            Arc::clone(&clock),
            Arc::clone(&metrics),
        );
        let engine = Arc::new(engine.observed(Arc::clone(&activity)));
        let health = health(&settings.store, &metrics, &clock);
        let (traces, spans) = traces(&settings.telemetry, &metrics)?;
        let answers = Arc::new(answer_options(&settings.answers));
        let rls = RateLimitService::new(Arc::clone(&engine), Arc::clone(&answers), Arc::clone(&metrics));
        let rls = rls.traced(traces.clone());
        let authz = AuthzService::new(
            Arc::clone(&engine),
            answers,
            undecided(settings.store.on_store_error),
            Arc::clone(&metrics),
            Arc::clone(&clock),
        );
        let authz = authz.traced(traces);
        let json = JsonService::new(rls.clone()).map_err(descriptors)?;
        let stop = CancellationToken::new();
        let quota = (settings.store.redis.is_some(), stop.clone());
        let quota = QuotaService::new(Arc::clone(&engine), Arc::clone(&clock), Arc::clone(&metrics), quota);
        let grpc = GrpcServer::new(
            grpc_options(&settings, shares.grpc, &metrics),
            rls,
            authz,
            Some(quota.clone()),
        )
        .await
        .map_err(descriptors)?;
        Ok(Self {
            grpc_listener,
            http_listener,
            admin_listener,
            prometheus_listener,
            grpc,
            shares,
            json,
            quota,
            engine,
            metrics,
            activity,
            clock,
            token,
            health,
            rules,
            background: stack.background,
            stop,
            spans,
            settings,
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the operating system does not say.
    pub fn addresses(&self) -> Result<Addresses, AppError> {
        let of = |listener: &TcpListener| listener.local_addr().map_err(AppError::Http);
        Ok(Addresses {
            grpc: self.grpc_listener.tcp_addr(),
            http: of(&self.http_listener)?,
            admin: of(&self.admin_listener.listener)?,
            prometheus: self.prometheus_listener.as_ref().map(of).transpose()?,
        })
    }

    /// Serves until `shutdown` completes, then drains: health turns NOT_SERVING first, connections are told to go
    /// away, answers under way finish.
    ///
    /// # Errors
    /// When a listener fails as a whole.
    pub async fn serve(self, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<(), AppError> {
        let addresses = self.addresses()?;
        let stop = self.stop;
        let _statsd = statsd(&self.settings.telemetry, &self.metrics)?;
        let mut background = JoinSet::new();
        background.spawn(logs::tell_dropped(self.metrics.log_lines_dropped.clone()));
        background.spawn(look_at_uncounted(self.health.clone(), stop.clone()));
        self.background.warm_up().await;
        let unsent = self
            .background
            .spawn(&mut background, &self.metrics, &self.activity, &self.health, &stop);
        self.rules
            .start(&mut background, Arc::clone(&self.engine), self.health.clone(), &stop)?;
        drain::mirror_health(&mut background, self.health.watch(), self.grpc.health());
        let api = Api::new(
            api::Parts {
                engine: Arc::clone(&self.engine),
                metrics: Arc::clone(&self.metrics),
                health: self.health.clone(),
                activity: self.activity,
                clock: self.clock,
                token: self.token,
                quota: self.quota,
                stop: stop.clone(),
            },
            &self.settings,
        );
        // What operators ask for, and metrics, take no time from decisions.
        let low_priority = BackgroundRuntime::start("admin").map_err(AppError::Http)?;
        background.spawn(low_priority.run(api.clone().run()));
        let admin = http::admin(Admin {
            engine: Arc::clone(&self.engine),
            metrics: Arc::clone(&self.metrics),
            health: self.health.clone(),
        })
        .merge(api.router());
        let mut servers = JoinSet::new();
        let port = |name, max_connections| HttpPortOptions {
            max_connections,
            client_timeout: self.settings.limits.client_timeout,
            metrics: self.metrics.port(name),
            name,
        };
        let serve = |listener, tls, router, options| serve_http(listener, tls, router, options, stop.clone());
        let public = http::public(self.health.clone(), self.json);
        servers.spawn(serve(self.http_listener, None, public, port("http", self.shares.http)).map(Ok));
        let AdminListener { listener, tls } = self.admin_listener;
        let admin = serve(listener, tls, admin, port("admin", self.shares.admin));
        servers.spawn(low_priority.run(admin).map(Ok));
        if let (Some(listener), Some(settings)) = (self.prometheus_listener, &self.settings.listen.prometheus) {
            let router = http::metrics(Arc::clone(&self.metrics), &settings.path);
            let metrics = serve(listener, None, router, port("metrics", self.shares.admin));
            servers.spawn(low_priority.run(metrics).map(Ok));
        }
        let token = stop.clone();
        let (grpc, listener) = (self.grpc, self.grpc_listener);
        servers.spawn(async move { listener.serve(grpc, token.cancelled_owned()).await });
        tracing::info!(?addresses, store = ?self.settings.store.kind, version = env!("CARGO_PKG_VERSION"), "serving");
        let result = drain::run(servers, shutdown, &self.health, &stop, &self.settings.limits, unsent).await;
        if let Some(spans) = self.spans {
            spans.flush().await;
        }
        background.shutdown().await;
        result
    }
}

fn health(store: &StoreSettings, metrics: &Metrics, clock: &Arc<dyn Clock>) -> Health {
    let redis = store.redis.as_ref();
    let health = Health::new(redis.is_some_and(|redis| redis.health_needs_connection));
    let health = health.counting(metrics.rlqs.undecided_streams.clone());
    health.watching(Arc::new(metrics.uncounted(Arc::clone(clock))))
}

/// Looks at what passes uncounted, so that a rise is seen although nobody asks for the process's health.
async fn look_at_uncounted(health: Health, stop: CancellationToken) {
    while stop
        .run_until_cancelled(tokio::time::sleep(UNCOUNTED_INTERVAL))
        .await
        .is_some()
    {
        health.uncounted();
    }
}

fn open_token(file: &std::path::Path) -> Result<Token, AppError> {
    Token::open(file).map_err(|error| AppError::AdminToken(error.to_string()))
}

/// Where spans are recorded, and what sends them; nothing where they are not asked for.
fn traces(telemetry: &TelemetrySettings, metrics: &Metrics) -> Result<(Option<Traces>, Option<Export>), AppError> {
    let settings = telemetry.traces.as_ref();
    Ok(settings
        .map(|settings| Traces::start(settings, metrics))
        .transpose()?
        .unzip())
}

/// The binary's own descriptors are broken.
fn descriptors(error: impl std::fmt::Display) -> AppError {
    AppError::Descriptors(error.to_string())
}

/// Sends metrics until it is dropped.
fn statsd(settings: &TelemetrySettings, metrics: &Arc<Metrics>) -> Result<Option<Statsd>, AppError> {
    let Some(statsd) = settings.statsd.clone() else {
        return Ok(None);
    };
    let started = Statsd::start(statsd, &settings.extra_tags, Arc::clone(metrics));
    started.map(Some).map_err(AppError::Statsd)
}

fn engine_options(settings: &Settings) -> EngineOptions {
    EngineOptions {
        key_prefix: settings.store.key_prefix.clone(),
        defaults: rules::defaults(&settings.rules),
        on_store_error: settings.store.on_store_error,
        shadow_mode: settings.answers.shadow_mode,
        quota_mode: settings.answers.quota_mode,
        charge_after_peek: settings.rules.charge_after_peek,
        near_limit_ppm: ppm(settings.answers.near_limit_ratio),
        max_noted: EngineOptions::MAX_NOTED,
        max_waiting: settings.limits.max_delayed,
        holds_back: true,
        max_concurrent: settings.limits.max_concurrent,
        on_overload: settings.limits.on_overload,
        ..EngineOptions::default()
    }
}

/// What becomes of requests that cannot be mapped: there is no counter of theirs that could be kept locally.
const fn undecided(on_store_error: OnStoreError) -> FailureMode {
    match on_store_error {
        OnStoreError::Local | OnStoreError::Allow => FailureMode::Allow,
        OnStoreError::Deny => FailureMode::Deny,
    }
}

/// A ratio of at most 1 in millionths.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to 0..=1 first"
)]
fn ppm(ratio: f64) -> u32 {
    (ratio.clamp(0.0, 1.0) * 1_000_000.0).round() as u32
}

fn answer_options(settings: &AnswerSettings) -> AnswerOptions {
    AnswerOptions {
        retry_after: true,
        problem_body: settings.problem_body,
        limit_headers: settings.limit_headers.clone(),
        request_limit_headers: settings.request_limit_headers.clone(),
        ietf_headers: settings.ietf_headers,
        dynamic_metadata: settings.dynamic_metadata,
        bounds: RequestBounds::default(),
    }
}

fn grpc_options(settings: &Settings, max_connections: usize, metrics: &Metrics) -> PortOptions {
    let threads = PortOptions::default().threads;
    PortOptions {
        max_connections,
        threads: if settings.ablation.no_cores { 0 } else { threads },
        connection: ConnectionOptions {
            max_age: settings.listen.grpc_max_connection_age,
            max_age_grace: settings.listen.grpc_max_connection_age_grace,
            client_timeout: settings.limits.client_timeout,
            ..ConnectionOptions::default()
        },
        metrics: Some(metrics.port("grpc")),
    }
}
