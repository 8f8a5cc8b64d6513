//! Connections by fred: every buffer is bounded, and fred retries nothing.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fred::interfaces::AuthInterface;
use fred::prelude::{
    Client, ClientLike, Config, ConnectionConfig, ErrorKind, PerformanceConfig, Server, ServerConfig, TcpConfig,
    TlsConfig, TlsConnector,
};
use fred::types::ConnectHandle;
use fred::types::config::{ClusterDiscoveryPolicy, ReconnectError};
use rustls::ClientConfig;

use crate::config::settings::redis::HostPort;
use crate::config::settings::{RedisAuth, RedisSettings, RedisTls, Topology};
use crate::store::StoreError;
use crate::store::error::printable;
use crate::tls::reload::EVERY;
use crate::tls::{Reloaded, TlsError, san, watched_client_config};

/// Calls that may wait in one connection's queue. Far more than queue up within a timeout at a working Redis; the bound only
/// limits memory while Redis hangs.
const MAX_QUEUED: usize = 16_384;
/// Most bytes that are read of a login file.
const MAX_LOGIN_BYTES: u64 = 64 << 10;

/// The contents of files that connections to a server and to its sentinels need: certificates and logins. Separate tasks read
/// them, never a reconnect: to parse a CA bundle takes milliseconds, during which a serving thread would be blocked.
#[derive(Clone)]
pub(super) struct Tls {
    config: Option<Arc<Reloaded<ClientConfig>>>,
    auth: Option<Arc<Reloaded<RedisAuth>>>,
    sentinel_auth: Option<Arc<Reloaded<RedisAuth>>>,
}

impl Tls {
    /// Reads the files that the settings name.
    ///
    /// # Errors
    /// [`TlsError`] names the file.
    pub fn new(settings: &RedisSettings) -> Result<Self, TlsError> {
        let watch = |tls: &RedisTls| watched_client_config("TLS to Redis", &tls.client, tls.skip_hostname);
        let config = settings.tls.as_ref().map(watch).transpose()?;
        let login = |what, file: &Option<PathBuf>| {
            let read = |path: &PathBuf| {
                let path = path.clone();
                Reloaded::start(what, vec![path.clone()], EVERY, move || read_login(&path))
            };
            Ok::<_, TlsError>(file.as_ref().map(read).transpose()?.map(Arc::new))
        };
        Ok(Self {
            config: config.map(Arc::new),
            auth: login("login to Redis", &settings.auth_file)?,
            sentinel_auth: login("login to the sentinels", &settings.sentinel_auth_file)?,
        })
    }

    /// The files for connections to sentinels, which log in with the sentinels' login.
    pub fn of_sentinels(&self) -> Self {
        Self {
            auth: self.sentinel_auth.clone(),
            ..self.clone()
        }
    }

    /// The newest login of the login file, if there is one.
    pub fn login(&self) -> Option<Arc<RedisAuth>> {
        self.auth.as_ref().map(|auth| auth.get())
    }

    /// Reads the login files now, because a server has refused a login.
    pub async fn read_logins(&self) {
        for auth in [&self.auth, &self.sentinel_auth].into_iter().flatten() {
            auth.look_now().await;
        }
    }
}

fn read_login(path: &Path) -> Result<RedisAuth, TlsError> {
    let unreadable = |cause| TlsError::Login {
        path: path.to_owned(),
        cause,
    };
    let mut text = String::new();
    let file = File::open(path).map_err(|error| unreadable(error.to_string()))?;
    let read = file.take(MAX_LOGIN_BYTES).read_to_string(&mut text);
    read.map_err(|error| unreadable(error.to_string()))?;
    let auth = RedisAuth::parse(&text);
    if auth.password.expose().is_empty() {
        return Err(unreadable("it holds no password".to_owned()));
    }
    Ok(auth)
}

/// A client that is not connected yet.
///
/// It has no reconnect policy: when its connection ends, so does its task, with every waiting call answered; the
/// supervisor (`link.rs`) then makes the next one. So a call is written once or not at all.
pub(super) fn new(settings: &RedisSettings, timeout: Duration, tls: &Tls) -> Client {
    let files = tls;
    let tls = files.config.as_ref().map(|tls| {
        let rustls = ClientConfig::clone(&tls.get());
        TlsConfig::from(TlsConnector::from(rustls))
    });
    let (username, password) = exposed(files.login().as_deref().or(settings.auth.as_ref()));
    let config = Config {
        fail_fast: true,
        username,
        password,
        server: server(settings, files),
        database: (settings.database != 0).then_some(settings.database),
        tls,
        ..Config::default()
    };
    let performance = PerformanceConfig {
        default_command_timeout: timeout,
        ..PerformanceConfig::default()
    };
    let connection = ConnectionConfig {
        connection_timeout: settings.connect_timeout,
        internal_command_timeout: settings.connect_timeout,
        max_command_attempts: 1,
        max_command_buffer_len: MAX_QUEUED,
        // The node has lost its master role, its data or its slots: a reconnect finds the one that serves them now.
        reconnect_errors: vec![
            ReconnectError::ReadOnly,
            ReconnectError::Loading,
            ReconnectError::MasterDown,
            ReconnectError::ClusterDown,
        ],
        reconnect_on_auth_error: true,
        tcp: TcpConfig {
            nodelay: Some(true),
            ..TcpConfig::default()
        },
        ..ConnectionConfig::default()
    };
    Client::new(config, Some(performance), Some(connection), None)
}

fn server(settings: &RedisSettings, files: &Tls) -> ServerConfig {
    let host = |address: &HostPort| {
        let mut server = Server::new(address.host.as_str(), address.port);
        let name = settings.tls.as_ref().and_then(|tls| tls.client.server_name.as_deref());
        server.tls_server_name = name.map(|name| san::ascii(name).into_owned().into());
        server
    };
    match &settings.topology {
        Topology::Single(address) => ServerConfig::Centralized { server: host(address) },
        Topology::Unix(path) => ServerConfig::Unix { path: path.clone() },
        Topology::Sentinel { master, sentinels } => {
            let from_file = files.sentinel_auth.as_ref().map(|auth| auth.get());
            let (username, password) = exposed(from_file.as_deref().or(settings.sentinel_auth.as_ref()));
            ServerConfig::Sentinel {
                hosts: sentinels.iter().map(host).collect(),
                service_name: master.clone(),
                username,
                password,
            }
        }
        // Not reached: the `cluster` module connects to each node as to a single server.
        Topology::Cluster(nodes) => ServerConfig::Clustered {
            hosts: nodes.iter().map(host).collect(),
            policy: ClusterDiscoveryPolicy::UseCache,
        },
    }
}

/// Authenticates a connection again; it stays usable if the server refuses. Needed by servers that close connections whose
/// login has expired (tokens of a cloud's identity service).
pub(super) async fn log_in(client: &Client, auth: &RedisAuth) -> Result<(), fred::error::Error> {
    client.auth(auth.username.clone(), auth.password.expose()).await
}

/// Authenticates a connection again when the login file has changed since `known`, once for each change.
pub(super) async fn renew(client: &Client, files: &Tls, known: &mut Option<Arc<RedisAuth>>) {
    let now = files.login();
    let is_other = match (&now, &*known) {
        (Some(now), Some(known)) => now != known,
        _ => false,
    };
    if !is_other {
        return;
    }
    if let Some(auth) = &now
        && let Err(error) = log_in(client, auth).await
    {
        // At level debug: the next connection that is made will report a refused login as an error. This one stays usable.
        tracing::debug!(
            error = printable(error.details()),
            "a connection to Redis could not be authenticated with the new login; it stays in use"
        );
    }
    *known = now;
}

/// User and password in the clear, for fred.
fn exposed(auth: Option<&RedisAuth>) -> (Option<String>, Option<String>) {
    match auth {
        Some(auth) => (auth.username.clone(), Some(auth.password.expose().to_owned())),
        None => (None, None),
    }
}

/// fred's task of one connection. When it is dropped, every call that still waits is answered with an error.
pub(super) struct AbortOnDrop(pub ConnectHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Connects. If this future is dropped, so is the attempt: fred's own `init` would go on connecting, and keep the connection
/// for ever.
pub(super) async fn connect(client: &Client) -> Result<AbortOnDrop, fred::error::Error> {
    // In this order: the event of the connection must be subscribed to before it can happen.
    let (connected, task) = tokio::join!(biased; client.wait_for_connect(), async { AbortOnDrop(client.connect()) });
    connected.map(|()| task)
}

/// The store's error for an error of fred.
pub(super) fn store_error(error: &fred::error::Error, timeout: Duration) -> StoreError {
    match error.kind() {
        ErrorKind::Timeout => StoreError::Timeout(timeout),
        ErrorKind::Backpressure => StoreError::Overloaded,
        ErrorKind::IO
        | ErrorKind::Canceled
        | ErrorKind::Routing
        | ErrorKind::Tls
        | ErrorKind::Url
        | ErrorKind::Sentinel => StoreError::Unavailable(printable(error.details())),
        ErrorKind::Protocol | ErrorKind::Parse => StoreError::Protocol(printable(error.details())),
        // The connection ended and dropped the call: fred's channel reports only that no answer will come.
        ErrorKind::Unknown if !is_server_text(error.details()) => StoreError::Unavailable(printable(error.details())),
        _ => StoreError::refused(error.details()),
    }
}

/// Whether an error's text comes from a server: those start with a word in capitals, and fred's own texts do not.
fn is_server_text(details: &str) -> bool {
    let word = details.split_whitespace().next().unwrap_or_default();
    word.len() > 1 && word.bytes().all(|b| b.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    /// Only reached on failure.
    const PATIENCE: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn who_gives_up_connecting_leaves_no_connection_behind() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let settings = RedisSettings {
            connect_timeout: 10 * PATIENCE,
            ..RedisSettings::from_url(&format!("redis://{address}")).unwrap()
        };
        let client = new(&settings, PATIENCE, &Tls::new(&settings).unwrap());
        // A server that takes the connection, and never answers.
        let mut server = tokio::select! {
            _ = connect(&client) => panic!("nobody has answered"),
            accepted = listener.accept() => accepted.unwrap().0,
        };
        let ended = timeout(PATIENCE, server.read_to_end(&mut Vec::new())).await;
        assert!(ended.is_ok(), "it is still connected");
    }
}
