//! How to reach Redis.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::percent_decode_str;

use super::secret::Secret;
use crate::tls::ClientTls;

/// Redis' own port.
pub(super) const REDIS_PORT: u16 = 6379;
/// A sentinel's port.
pub(super) const SENTINEL_PORT: u16 = 26_379;

/// One Redis, whatever its shape.
#[derive(Debug, Clone, PartialEq)]
pub struct RedisSettings {
    /// Shape and addresses.
    pub topology: Topology,
    /// How to log in to the servers.
    pub auth: Option<RedisAuth>,
    /// A file with the same, in place of it: read again when it changes.
    pub auth_file: Option<PathBuf>,
    /// How to log in to the sentinels, if that is needed.
    pub sentinel_auth: Option<RedisAuth>,
    /// A file with the same, in place of it: read again when it changes.
    pub sentinel_auth_file: Option<PathBuf>,
    /// Number of the database; 0 in a cluster.
    pub database: u8,
    /// Connections to each server; commands are pipelined, so a few are enough. At least 1.
    pub pool_size: usize,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// TLS, to servers and sentinels alike.
    pub tls: Option<RedisTls>,
    /// Not healthy while there is no connection (`REDIS_HEALTH_CHECK_ACTIVE_CONNECTION`).
    pub health_needs_connection: bool,
    /// What every key begins with (`CACHE_KEY_PREFIX`): the user may have no right to others.
    pub key_prefix: Cow<'static, str>,
}

/// The shape of a Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topology {
    /// One server.
    Single(HostPort),
    /// One server on this machine.
    Unix(PathBuf),
    /// A master that sentinels know.
    Sentinel {
        /// The name under which they know it.
        master: String,
        /// At least one.
        sentinels: Vec<HostPort>,
    },
    /// Redis Cluster: at least one of its nodes.
    Cluster(Vec<HostPort>),
}

/// A server's address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// Name or address (IPv6 without brackets).
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// A login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisAuth {
    /// ACL user; `None` = the default user.
    pub username: Option<String>,
    /// Its password.
    pub password: Secret,
}

/// TLS towards Redis.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RedisTls {
    /// Certificates.
    pub client: ClientTls,
    /// The server's certificate may carry any name (it must still be signed by the CA).
    pub skip_hostname: bool,
}

impl RedisSettings {
    /// A plain connection to `topology`.
    #[must_use]
    pub const fn new(topology: Topology) -> Self {
        Self {
            topology,
            auth: None,
            auth_file: None,
            sentinel_auth: None,
            sentinel_auth_file: None,
            database: 0,
            pool_size: 4,
            connect_timeout: Duration::from_secs(1),
            tls: None,
            health_needs_connection: false,
            key_prefix: Cow::Borrowed("sg:"),
        }
    }

    /// Reads a URL: `redis://[user:password@]host[:port][/database]`, `rediss://…` (TLS), `unix:///path/to.sock`,
    /// `redis-sentinel://…host:port,host:port/master`, `redis-cluster://…host:port,host:port`, the last two also as
    /// `rediss-…`. A path or `host:port` without a scheme is one server.
    ///
    /// # Errors
    /// What is wrong, without the password.
    pub fn from_url(url: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = url.split_once("://") else {
            return Ok(Self::new(plain_address(url)?));
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (login, rest) = match rest.rsplit_once('@') {
            Some((login, rest)) => (Some(auth_of_url(login)?), rest),
            None => (None, rest),
        };
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let options = Options::parse(query)?;
        let mut settings = match scheme {
            "unix" | "redis+unix" => Self::new(Topology::Unix(unix_path(&format!("/{path}"))?)),
            "redis" | "rediss" => {
                let mut settings = Self::new(Topology::Single(host_port(hosts, REDIS_PORT)?));
                settings.database = database(path)?;
                settings
            }
            "redis-cluster" | "rediss-cluster" => {
                Self::new(Topology::Cluster(host_list(hosts, &options.nodes, REDIS_PORT)?))
            }
            "redis-sentinel" | "rediss-sentinel" => sentinel_url(hosts, path, &options)?,
            _ => {
                return Err(
                    "allowed are redis:// rediss:// redis-sentinel:// redis-cluster:// (the last two also with rediss) and unix://"
                        .into(),
                );
            }
        };
        settings.auth = login;
        settings.sentinel_auth = options.sentinel_auth();
        if scheme.starts_with("rediss") {
            settings.tls = Some(RedisTls::default());
        }
        Ok(settings)
    }
}

impl fmt::Display for RedisSettings {
    /// The addresses, for logs: no login.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = if self.tls.is_some() { "s" } else { "" };
        match &self.topology {
            Topology::Single(server) => write!(f, "redis{s}://{server}"),
            Topology::Unix(path) => write!(f, "unix://{}", path.display()),
            Topology::Sentinel { master, sentinels } => {
                write!(f, "redis{s}-sentinel://{}/{master}", joined(sentinels))
            }
            Topology::Cluster(nodes) => write!(f, "redis{s}-cluster://{}", joined(nodes)),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl RedisAuth {
    /// Reads envoyproxy/ratelimit's form: `password` or `user:password`, taken as they are.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match text.split_once(':') {
            Some((user, password)) => Self {
                username: Some(user.to_owned()).filter(|user| !user.is_empty()),
                password: Secret::new(password),
            },
            None => Self {
                username: None,
                password: Secret::new(text),
            },
        }
    }
}

/// Several servers, separated by commas: at least one.
///
/// # Errors
/// What is allowed.
pub fn servers(text: &str, default_port: u16) -> Result<Vec<HostPort>, String> {
    let servers: Vec<HostPort> = text
        .split(',')
        .map(str::trim)
        .filter(|server| !server.is_empty())
        .map(|server| host_port(server, default_port))
        .collect::<Result<_, _>>()?;
    if servers.is_empty() {
        return Err("at least one host:port is needed".into());
    }
    Ok(servers)
}

/// envoyproxy/ratelimit's form of a sentinel URL, `master,host:port,…`: the master's name, and its sentinels.
pub(super) fn sentinel_list(text: &str) -> Result<(&str, &str), String> {
    text.split_once(',')
        .map(|(master, sentinels)| (master.trim(), sentinels))
        .filter(|(master, _)| !master.is_empty() && !master.contains(':'))
        .ok_or_else(|| "allowed is the master's name, then its sentinels: master,host:port,host:port".into())
}

/// A socket's path, or `host:port`.
pub(super) fn plain_address(text: &str) -> Result<Topology, String> {
    if text.starts_with('/') {
        return Ok(Topology::Unix(unix_path(text)?));
    }
    Ok(Topology::Single(host_port(text, REDIS_PORT)?))
}

/// `host`, `host:port`, `[v6]`, `[v6]:port`.
pub(super) fn host_port(text: &str, default_port: u16) -> Result<HostPort, String> {
    let allowed = "allowed is host:port, such as redis:6379";
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, tail) = rest.split_once(']').ok_or(allowed)?;
            (host, tail.strip_prefix(':'))
        }
        None => match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = match port {
        Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or(allowed)?,
        None => default_port,
    };
    let bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '@' | ',');
    if host.is_empty() || host.contains(bad) {
        return Err(allowed.into());
    }
    Ok(HostPort {
        host: crate::tls::san::ascii(host).into_owned(),
        port,
    })
}

fn unix_path(text: &str) -> Result<PathBuf, String> {
    if text.len() < 2 {
        return Err("allowed is the path of a socket, such as unix:///run/redis.sock".into());
    }
    Ok(Path::new(text).to_owned())
}

fn sentinel_url(hosts: &str, path: &str, options: &Options) -> Result<RedisSettings, String> {
    let (in_path, db) = match &options.master {
        // With the master among the options, the path is the database.
        Some(_) => ("", database(path)?),
        None => (path, 0),
    };
    let master = options.master.as_deref().unwrap_or(in_path);
    if master.is_empty() {
        return Err("the master's name is missing: redis-sentinel://host:26379,host:26379/master".into());
    }
    let mut settings = RedisSettings::new(Topology::Sentinel {
        master: master.to_owned(),
        sentinels: host_list(hosts, &options.nodes, SENTINEL_PORT)?,
    });
    settings.database = db;
    Ok(settings)
}

fn host_list(hosts: &str, more: &[String], default_port: u16) -> Result<Vec<HostPort>, String> {
    let mut list = servers(hosts, default_port)?;
    for node in more {
        list.push(host_port(node, default_port)?);
    }
    Ok(list)
}

fn database(path: &str) -> Result<u8, String> {
    match path {
        "" => Ok(0),
        number => number
            .parse()
            .map_err(|_| "the database after the / is a number from 0 to 255".into()),
    }
}

fn auth_of_url(login: &str) -> Result<RedisAuth, String> {
    let decode = |part: &str| {
        percent_decode_str(part)
            .decode_utf8()
            .map(|text| text.into_owned())
            .map_err(|_| "the login in the URL is not valid percent-encoded UTF-8".to_owned())
    };
    let (user, password) = login.split_once(':').unwrap_or(("", login));
    Ok(RedisAuth {
        username: Some(decode(user)?).filter(|user| !user.is_empty()),
        password: Secret::new(decode(password)?),
    })
}

/// What may stand behind the `?` of a URL.
#[derive(Default)]
struct Options {
    nodes: Vec<String>,
    master: Option<String>,
    sentinel_user: Option<String>,
    sentinel_password: Option<String>,
}

impl Options {
    fn parse(query: &str) -> Result<Self, String> {
        let mut options = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decode_str(value)
                .decode_utf8()
                .map_err(|_| "an option of the URL is not valid percent-encoded UTF-8")?
                .into_owned();
            match name {
                "node" => options.nodes.push(value),
                "sentinelServiceName" => options.master = Some(value),
                "sentinelUsername" => options.sentinel_user = Some(value),
                "sentinelPassword" => options.sentinel_password = Some(value),
                _ => {
                    return Err(
                        "allowed options are node, sentinelServiceName, sentinelUsername and sentinelPassword".into(),
                    );
                }
            }
        }
        Ok(options)
    }

    fn sentinel_auth(&self) -> Option<RedisAuth> {
        self.sentinel_password.as_ref().map(|password| RedisAuth {
            username: self.sentinel_user.clone(),
            password: Secret::new(password),
        })
    }
}

fn joined(servers: &[HostPort]) -> String {
    let mut out = String::new();
    for (i, server) in servers.iter().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        // Writing to a String cannot fail.
        let _ = write!(out, "{comma}{server}");
    }
    out
}
