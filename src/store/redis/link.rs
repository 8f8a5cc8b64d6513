//! Connections to one server, and the tasks that keep them alive.
//!
//! A link is up or down, and a call on a link that is down fails at once, with the reason. Its supervisor connects, watches
//! the connection, and reconnects with a short, jittered backoff: after a lost connection, after an error (or a sentinel) that
//! names another server, and after a stall (calls time out one after the other, or a heartbeat does).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use fred::prelude::{Client, ClientLike};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::budget::Budget;
use super::client::{self, AbortOnDrop, Tls};
use super::evaluate::warm;
use super::events::{LinkWatch, RedisObserver};
use super::sentinel::Master;
use crate::config::settings::RedisSettings;
use crate::config::settings::redis::HostPort;
use crate::store::StoreError;
use crate::store::error::printable;
use crate::store::per_thread::PerThread;

/// Calls that time out in a row before the link counts as stalled.
const STALL_AFTER: u32 = 8;
/// Between two heartbeats; also how soon an idle link's death is noticed.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Timeout of a heartbeat; after it the supervisor reconnects.
const STALL_PATIENCE: Duration = Duration::from_millis(500);
/// Backoff between two attempts to connect, before jitter.
const MIN_BACKOFF: Duration = Duration::from_millis(20);
/// It doubles up to this; with jitter at most 1.5 times as long.
const MAX_BACKOFF: Duration = Duration::from_millis(300);

/// One server: a few shared links, and one for each single-threaded runtime that makes calls, so that a call of such a runtime
/// never leaves its thread.
pub(super) struct Server {
    links: PerThread<Links>,
}

impl Server {
    /// Starts to connect.
    pub fn spawn(
        settings: RedisSettings,
        call_timeout: Duration,
        observer: RedisObserver,
        tls: &Tls,
        stop: &CancellationToken,
    ) -> Self {
        let watch = LinkWatch::new(&settings.to_string(), observer);
        let master = Master::follow(&settings, tls, stop);
        let shared = Links::spawn(settings.clone(), call_timeout, &master, &watch, tls, stop);
        let one = RedisSettings {
            pool_size: 1,
            ..settings
        };
        let (tls, stop) = (tls.clone(), stop.clone());
        let make = move || Links::spawn(one.clone(), call_timeout, &master, &watch, &tls, &stop);
        Self {
            links: PerThread::new(shared, make),
        }
    }

    /// The links for a call from this thread.
    pub fn links(&self) -> Arc<Links> {
        let own = self.links.own().filter(|own| own.up() > 0);
        own.unwrap_or_else(|| Arc::clone(self.links.shared()))
    }

    /// Connections that are up, and how many there should be.
    pub fn connections(&self) -> (usize, usize) {
        let all = self.links.all();
        all.iter()
            .fold((0, 0), |(up, wanted), links| (up + links.up(), wanted + links.len()))
    }
}

/// A few links to one server.
pub(super) struct Links {
    links: Vec<Arc<Link>>,
    next: AtomicUsize,
    /// Ends the supervisors, and with them the connections.
    _guard: DropGuard,
}

impl Links {
    /// Starts `pool_size` links. They end when this value is dropped, or with `stop`.
    pub fn spawn(
        settings: RedisSettings,
        call_timeout: Duration,
        master: &Master,
        watch: &Arc<LinkWatch>,
        tls: &Tls,
        stop: &CancellationToken,
    ) -> Self {
        let settings = Arc::new(settings);
        let stop = stop.child_token();
        let link = |_| {
            let (link, settings) = (Arc::new(Link::new()), settings.clone());
            let supervisor = Supervisor {
                link: link.clone(),
                settings,
                call_timeout,
                master: master.clone(),
                watch: watch.clone(),
                tls: tls.clone(),
            };
            let stop = stop.clone();
            tokio::spawn(async move { stop.run_until_cancelled(supervisor.run()).await });
            link
        };
        Self {
            links: (0..settings.pool_size.max(1)).map(link).collect(),
            next: AtomicUsize::new(0),
            _guard: stop.drop_guard(),
        }
    }

    /// The number of links that are up.
    pub fn up(&self) -> usize {
        self.links.iter().filter(|link| link.is_up()).count()
    }

    /// The number of links.
    pub fn len(&self) -> usize {
        self.links.len()
    }

    /// The next link that is up, in turn; if none is, any link, whose reason a call then gets.
    pub fn next(&self) -> Result<&Link, StoreError> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let in_turn = |n: usize| self.links.get(first.wrapping_add(n) % self.links.len().max(1));
        (0..self.links.len())
            .filter_map(in_turn)
            .find(|link| link.is_up())
            .or_else(|| in_turn(0))
            .map(|link| &**link)
            .ok_or_else(|| StoreError::Unavailable("no connections".to_owned()))
    }
}

/// One connection, which its supervisor keeps and replaces.
pub(super) struct Link {
    client: ArcSwapOption<Client>,
    up: AtomicBool,
    /// Why it is down.
    reason: Mutex<StoreError>,
    timeouts: AtomicU32,
    stalled: Notify,
}

impl Link {
    fn new() -> Self {
        Self {
            client: ArcSwapOption::empty(),
            up: AtomicBool::new(false),
            reason: Mutex::new(StoreError::Unavailable("never connected yet".to_owned())),
            timeouts: AtomicU32::new(0),
            stalled: Notify::new(),
        }
    }

    /// Whether calls may be made now.
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Acquire) && self.client.load().is_some()
    }

    /// The client to call on.
    ///
    /// # Errors
    /// The reason for which the link is down.
    pub fn client(&self) -> Result<Arc<Client>, StoreError> {
        if self.is_up()
            && let Some(client) = self.client.load_full()
        {
            return Ok(client);
        }
        Err(self.reason.lock().clone())
    }

    /// Records that a call was answered over this client (a refusal is an answer).
    pub fn answered(&self, client: &Arc<Client>) {
        if self.timeouts.load(Ordering::Relaxed) != 0 {
            self.timeouts.store(0, Ordering::Relaxed);
        }
        if !self.is_up() && self.client.load().as_ref().is_some_and(|now| Arc::ptr_eq(now, client)) {
            // The link had stalled, and its supervisor has not replaced the connection yet.
            self.set_up();
        }
    }

    /// Records that a call was not answered within the store's timeout.
    pub fn timed_out(&self, timeout: Duration) {
        if self.timeouts.fetch_add(1, Ordering::Relaxed) + 1 >= STALL_AFTER && self.is_up() {
            self.set_down(StoreError::Timeout(timeout));
            self.stalled.notify_one();
        }
    }

    fn set_down(&self, reason: StoreError) {
        *self.reason.lock() = reason.not_sent();
        self.up.store(false, Ordering::Release);
    }

    fn set_up(&self) {
        self.timeouts.store(0, Ordering::Relaxed);
        self.up.store(true, Ordering::Release);
    }
}

struct Supervisor {
    link: Arc<Link>,
    settings: Arc<RedisSettings>,
    call_timeout: Duration,
    master: Master,
    watch: Arc<LinkWatch>,
    tls: Tls,
}

impl Supervisor {
    /// Connects for ever.
    async fn run(mut self) {
        let mut failed_attempts = 0_u32;
        loop {
            match self.connect().await {
                Ok((client, task)) => {
                    self.link.client.store(Some(Arc::new(client.clone())));
                    self.link.set_up();
                    let connection = self.watch.connected();
                    failed_attempts = 0;
                    let reason = self.watch(&client, task).await;
                    // In this order: `Link::answered` sets the link up only while the link has this client.
                    self.link.client.store(None);
                    self.link.set_down(reason.clone());
                    connection.lost(reason);
                }
                Err(error) => {
                    if error.is_login() {
                        self.tls.read_logins().await;
                    }
                    failed_attempts = failed_attempts.saturating_add(1);
                    self.link.set_down(error.clone());
                    self.watch.failed(error);
                }
            }
            sleep(backoff(failed_attempts)).await;
        }
    }

    async fn connect(&mut self) -> Result<(Client, AbortOnDrop), StoreError> {
        let settings = self.master.ask_first(&self.settings);
        let client = client::new(&settings, Budget::total(self.call_timeout), &self.tls);
        let limit = settings.connect_timeout;
        // fred bounds each step by the same time; there are a few of them (sentinels, nodes, authentication).
        let connected = timeout(limit * 4, client::connect(&client));
        let connected = tokio::select! {
            connected = connected => connected,
            // A dead master would block until the timeout.
            () = self.master.replaced() => {
                return Err(StoreError::Unavailable("the sentinels name another master".to_owned()));
            }
        };
        match connected {
            Ok(Ok(task)) => {
                warm(&client, limit).await;
                Ok((client, task))
            }
            Ok(Err(error)) => Err(self.master.with_failure(client::store_error(&error, limit))),
            Err(_) => Err(StoreError::Timeout(limit * 4)),
        }
    }

    /// Watches a connection; returns, with the reason, when it has to be replaced.
    async fn watch(&mut self, client: &Client, mut task: AbortOnDrop) -> StoreError {
        let mut login = self.tls.login();
        loop {
            client::renew(client, &self.tls, &mut login).await;
            tokio::select! {
                ended = &mut task.0 => return self.ended(ended),
                () = self.link.stalled.notified() => {}
                () = self.master.changed() => {}
                () = sleep(HEARTBEAT) => {}
            }
            if let Some(HostPort { host, port }) = self.master.instead_of(client) {
                let text = format!("the sentinels name another master: {host}:{port}");
                return StoreError::Unavailable(printable(&text));
            }
            // After any of these events the server must answer.
            tokio::select! {
                ended = &mut task.0 => return self.ended(ended),
                alive = self.heartbeat(client) => match alive {
                    Ok(()) => self.link.set_up(),
                    Err(reason) => return reason,
                },
            }
        }
    }

    /// One PING with a longer timeout than a call has.
    async fn heartbeat(&self, client: &Client) -> Result<(), StoreError> {
        let patient = fred::types::config::Options {
            timeout: Some(STALL_PATIENCE),
            ..Default::default()
        };
        let ping = client.with_options(&patient);
        let answer: Result<String, _> = ping.ping(None).await;
        match answer {
            Ok(_) => Ok(()),
            Err(error) => Err(client::store_error(&error, STALL_PATIENCE)),
        }
    }

    fn ended(&self, ended: Result<Result<(), fred::error::Error>, tokio::task::JoinError>) -> StoreError {
        match ended {
            Ok(Ok(())) => StoreError::Unavailable("the connection was closed".to_owned()),
            Ok(Err(error)) => client::store_error(&error, self.call_timeout),
            Err(error) => StoreError::Unavailable(format!("the connection's task failed: {error}")),
        }
    }
}

/// The pause before the next attempt: doubling, then spread over ±50 %, so that replicas do not reconnect together.
fn backoff(failed_attempts: u32) -> Duration {
    let doubled = MIN_BACKOFF.saturating_mul(1 << failed_attempts.min(8));
    doubled.min(MAX_BACKOFF).mul_f64(rand::random_range(0.5..1.5))
}
