//! The master's address, by polling the sentinels.
//!
//! After `SENTINEL FAILOVER`, or when a dead master comes back, the old master goes on taking writes until a sentinel demotes
//! it, some ten seconds later, and all of these writes are lost. So a link does not wait for READONLY, but reconnects as soon
//! as the sentinels name another master.

use std::sync::Arc;
use std::time::Duration;

use fred::prelude::{Client, ClientLike};
use fred::types::{ClusterHash, CustomCommand};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::client::{self, Tls};
use crate::config::settings::redis::HostPort;
use crate::config::settings::{RedisSettings, Topology};
use crate::store::StoreError;

/// Time between two polls; for so long hits may go to a master that has been replaced.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// Timeout of a poll; after it the next sentinel is polled.
const PATIENCE: Duration = Duration::from_millis(500);
/// Pause after no sentinel has answered.
const PAUSE: Duration = Duration::from_millis(500);

/// The sentinels' newest answer; `None` without sentinels, or while none has answered.
#[derive(Debug, Clone)]
pub(super) struct Master(Option<watch::Receiver<Option<SentinelAnswer>>>, SentinelFailure);

/// Why the last polled sentinel did not answer; `None` once one does.
type SentinelFailure = Arc<Mutex<Option<String>>>;

#[derive(Debug, Clone, PartialEq, Eq)]
struct SentinelAnswer {
    master: HostPort,
    /// Index of the sentinel that gave it.
    by: usize,
}

impl Master {
    /// The master of a server without sentinels.
    pub fn fixed() -> Self {
        Self(None, SentinelFailure::default())
    }

    /// Starts to poll the sentinels of the settings, if there are any, until `stop`.
    pub fn follow(settings: &RedisSettings, tls: &Tls, stop: &CancellationToken) -> Self {
        let Topology::Sentinel { master, sentinels } = &settings.topology else {
            return Self::fixed();
        };
        let (answers, newest) = watch::channel(None);
        let failure = SentinelFailure::default();
        let asker = Asker {
            name: master.clone(),
            sentinels: sentinels.iter().map(|sentinel| as_server(settings, sentinel)).collect(),
            answers,
            tls: tls.of_sentinels(),
            failure: Arc::clone(&failure),
        };
        let stop = stop.clone();
        tokio::spawn(async move { stop.run_until_cancelled(asker.run()).await });
        Self(Some(newest), failure)
    }

    /// Adds to an error of connecting why no sentinel answers (such as its certificate), which the driver leaves out.
    pub fn with_failure(&self, error: StoreError) -> StoreError {
        match (error, &*self.1.lock()) {
            (StoreError::Unavailable(text), Some(failure)) => StoreError::Unavailable(format!("{text} ({failure})")),
            (error, _) => error,
        }
    }

    /// Completes when the answer differs from the one at the last call.
    pub async fn changed(&mut self) {
        if let Some(newest) = &mut self.0
            && newest.changed().await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }

    /// Completes when another master is named than at the time of the call.
    pub async fn replaced(&mut self) {
        if let Some(newest) = &mut self.0 {
            let named = |answer: &Option<SentinelAnswer>| answer.as_ref().map(|answer| answer.master.clone());
            let before = named(&newest.borrow_and_update());
            if newest
                .wait_for(|answer| before.is_some() && named(answer) != before)
                .await
                .is_ok()
            {
                return;
            }
        }
        std::future::pending().await
    }

    /// The named master, if this client is connected to another server.
    pub fn instead_of(&self, client: &Client) -> Option<HostPort> {
        let named = self.0.as_ref()?.borrow().clone()?.master;
        let connected = client.active_connections();
        let is_named = connected
            .iter()
            .any(|server| *server.host == *named.host && server.port == named.port);
        (!connected.is_empty() && !is_named).then_some(named)
    }

    /// The settings to connect with, with the sentinel that answers as the first one: a dead one would take the whole timeout of
    /// connecting.
    pub fn ask_first(&self, settings: &RedisSettings) -> RedisSettings {
        let mut settings = settings.clone();
        let by = self.0.as_ref().and_then(|newest| Some(newest.borrow().as_ref()?.by));
        if let (Some(by), Topology::Sentinel { sentinels, .. }) = (by, &mut settings.topology)
            && by < sentinels.len()
        {
            sentinels.rotate_left(by);
        }
        settings
    }
}

/// The settings to connect to a sentinel.
fn as_server(settings: &RedisSettings, sentinel: &HostPort) -> RedisSettings {
    RedisSettings {
        topology: Topology::Single(sentinel.clone()),
        auth: settings.sentinel_auth.clone(),
        auth_file: settings.sentinel_auth_file.clone(),
        database: 0,
        ..settings.clone()
    }
}

struct Asker {
    name: String,
    sentinels: Vec<RedisSettings>,
    answers: watch::Sender<Option<SentinelAnswer>>,
    tls: Tls,
    failure: SentinelFailure,
}

impl Asker {
    /// Polls one sentinel for as long as it answers, then the next one.
    async fn run(self) {
        let mut refused = false;
        loop {
            for (by, sentinel) in self.sentinels.iter().enumerate() {
                if let Err(error) = self.ask(by, sentinel).await {
                    if error.is_login() && !refused {
                        tracing::warn!(
                            %sentinel, %error,
                            "a sentinel refuses the login, so a failover is seen late: correct REDIS_SENTINEL_AUTH_FILE \
                             (--redis-sentinel-auth-file), which is read again when it changes"
                        );
                    }
                    refused = error.is_login();
                    if refused {
                        self.tls.read_logins().await;
                    }
                    tracing::debug!(%sentinel, %error, "a sentinel does not answer");
                    *self.failure.lock() = Some(error.to_string());
                }
            }
            sleep(PAUSE).await;
        }
    }

    /// Polls a sentinel; returns when it does not answer any more.
    async fn ask(&self, by: usize, sentinel: &RedisSettings) -> Result<(), StoreError> {
        let patience = sentinel.connect_timeout;
        let client = client::new(sentinel, patience, &self.tls);
        let _task = in_time(patience, client::connect(&client)).await?;
        let mut login = self.tls.login();
        loop {
            client::renew(&client, &self.tls, &mut login).await;
            let question = CustomCommand::new_static("SENTINEL", ClusterHash::Random, false);
            let words = vec!["get-master-addr-by-name", &self.name];
            let (host, port) = in_time(PATIENCE, client.custom(question, words)).await?;
            *self.failure.lock() = None;
            let answer = SentinelAnswer {
                master: HostPort { host, port },
                by,
            };
            self.answers.send_if_modified(|before| {
                let is_news = before.as_ref() != Some(&answer);
                *before = Some(answer);
                is_news
            });
            sleep(ASK_EVERY).await;
        }
    }
}

async fn in_time<T>(
    patience: Duration,
    asked: impl Future<Output = Result<T, fred::error::Error>>,
) -> Result<T, StoreError> {
    match timeout(patience, asked).await {
        Ok(answer) => answer.map_err(|error| client::store_error(&error, patience)),
        Err(_) => Err(StoreError::Timeout(patience)),
    }
}
