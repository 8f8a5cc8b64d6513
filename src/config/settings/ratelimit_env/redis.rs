//! `REDIS_…`, `REDIS_PERSECOND_…`, `BACKEND_TYPE`.

use super::super::model::{StoreKind, StoreSettings};
use super::super::reader::Reader;
use super::super::redis::{self, HostPort, RedisAuth, RedisSettings, RedisTls, Topology};
use super::super::values;
use crate::tls::ClientTls;

const TLS_NAMES: [&str; 4] = [
    "REDIS_TLS_CACERT",
    "REDIS_TLS_CLIENT_CERT",
    "REDIS_TLS_CLIENT_KEY",
    "REDIS_TLS_SKIP_HOSTNAME_VERIFICATION",
];

/// The names of one Redis' variables.
struct Names {
    url: &'static str,
    socket_type: &'static str,
    redis_type: &'static str,
    pool_size: &'static str,
    auth: &'static str,
    auth_file: &'static str,
    sentinel_auth: &'static str,
    sentinel_auth_file: &'static str,
    tls: &'static str,
    timeout: &'static str,
}

impl Names {
    const fn all(&self) -> [&'static str; 10] {
        [
            self.url,
            self.socket_type,
            self.redis_type,
            self.pool_size,
            self.auth,
            self.auth_file,
            self.sentinel_auth,
            self.sentinel_auth_file,
            self.tls,
            self.timeout,
        ]
    }
}

const MAIN: Names = Names {
    url: "REDIS_URL",
    socket_type: "REDIS_SOCKET_TYPE",
    redis_type: "REDIS_TYPE",
    pool_size: "REDIS_POOL_SIZE",
    auth: "REDIS_AUTH",
    auth_file: "REDIS_AUTH_FILE",
    sentinel_auth: "REDIS_SENTINEL_AUTH",
    sentinel_auth_file: "REDIS_SENTINEL_AUTH_FILE",
    tls: "REDIS_TLS",
    timeout: "REDIS_TIMEOUT",
};

const PER_SECOND: Names = Names {
    url: "REDIS_PERSECOND_URL",
    socket_type: "REDIS_PERSECOND_SOCKET_TYPE",
    redis_type: "REDIS_PERSECOND_TYPE",
    pool_size: "REDIS_PERSECOND_POOL_SIZE",
    auth: "REDIS_PERSECOND_AUTH",
    auth_file: "REDIS_PERSECOND_AUTH_FILE",
    sentinel_auth: "REDIS_PERSECOND_SENTINEL_AUTH",
    sentinel_auth_file: "REDIS_PERSECOND_SENTINEL_AUTH_FILE",
    tls: "REDIS_PERSECOND_TLS",
    timeout: "REDIS_PERSECOND_TIMEOUT",
};

pub(super) fn store(reader: &mut Reader<'_>, store: &mut StoreSettings) {
    let backend = reader.parse("BACKEND_TYPE", |text| match text {
        "redis" => Ok(StoreKind::Redis),
        "memory" => Ok(StoreKind::Memory),
        "memcache" => Err("memcached cannot decide without races; allowed are redis and memory".into()),
        _ => Err("allowed are redis and memory".into()),
    });
    let main = server(reader, &MAIN);
    let per_second = server(reader, &PER_SECOND);
    let with_per_second = reader.truth("REDIS_PERSECOND");
    let health = reader.truth("REDIS_HEALTH_CHECK_ACTIVE_CONNECTION");
    let url_given = reader.text(MAIN.url).is_some();
    store.kind = backend.unwrap_or(if url_given { StoreKind::Redis } else { StoreKind::Memory });
    if store.kind == StoreKind::Memory {
        let why = "counters live in memory (BACKEND_TYPE=memory, or no REDIS_URL)";
        reader.idle(&MAIN.all(), why);
        reader.idle(&PER_SECOND.all(), why);
        reader.idle(&TLS_NAMES, why);
        reader.idle(&["REDIS_PERSECOND", "REDIS_HEALTH_CHECK_ACTIVE_CONNECTION"], why);
        return;
    }
    if !url_given {
        reader.problem(
            MAIN.url,
            "is needed with BACKEND_TYPE=redis, for instance REDIS_URL=redis:6379",
        );
    }
    store.redis = main.map(|redis| RedisSettings {
        health_needs_connection: health,
        ..redis
    });
    if with_per_second {
        if reader.text(PER_SECOND.url).is_none() {
            reader.problem(PER_SECOND.url, "is needed with REDIS_PERSECOND=true");
        }
        store.redis_per_second = per_second.map(|redis| RedisSettings {
            health_needs_connection: health,
            ..redis
        });
    } else {
        reader.idle(&PER_SECOND.all(), "REDIS_PERSECOND is not true");
    }
    let tls = [&store.redis, &store.redis_per_second]
        .into_iter()
        .flatten()
        .any(|redis| redis.tls.is_some());
    if !tls {
        reader.idle(&TLS_NAMES, "neither REDIS_TLS nor a rediss:// URL asks for TLS");
    }
}

/// One Redis; `None` without a URL, or with one that is wrong (noted).
fn server(reader: &mut Reader<'_>, names: &Names) -> Option<RedisSettings> {
    let kind = reader.parse(names.redis_type, |text| match text.to_ascii_lowercase().as_str() {
        "single" => Ok(Kind::Single),
        "sentinel" => Ok(Kind::Sentinel),
        "cluster" => Ok(Kind::Cluster),
        _ => Err("allowed are SINGLE, SENTINEL and CLUSTER".into()),
    });
    let socket = reader.parse(names.socket_type, |text| match text {
        "unix" => Ok(Socket::Unix),
        "tcp" | "tcp4" | "tcp6" => Ok(Socket::Tcp),
        _ => Err("allowed are tcp and unix".into()),
    });
    let pool_size = reader.parse(names.pool_size, values::at_least_one::<u16>);
    let timeout = reader.parse(names.timeout, values::positive_duration);
    let auth = reader.text(names.auth).map(|auth| RedisAuth::parse(&auth));
    let sentinel_auth = reader.text(names.sentinel_auth).map(|auth| RedisAuth::parse(&auth));
    let tls = reader.truth(names.tls);
    let files = tls_files(reader);
    let url = |text: &str| address(text, kind.unwrap_or(Kind::Single), socket);
    let mut redis = reader.parse(names.url, url)?;
    redis.auth = auth.or(redis.auth);
    redis.auth_file = reader.path(names.auth_file);
    redis.sentinel_auth = sentinel_auth.or(redis.sentinel_auth);
    redis.sentinel_auth_file = reader.path(names.sentinel_auth_file);
    redis.connect_timeout = timeout.unwrap_or(redis.connect_timeout);
    if let Some(size) = pool_size {
        redis.pool_size = size.into();
    }
    if tls || redis.tls.is_some() {
        redis.tls = Some(files);
    }
    Some(redis)
}

#[derive(Clone, Copy)]
enum Kind {
    Single,
    Sentinel,
    Cluster,
}

#[derive(Clone, Copy)]
enum Socket {
    Unix,
    Tcp,
}

/// envoyproxy/ratelimit's forms of an address, or one of our URLs.
fn address(text: &str, kind: Kind, socket: Option<Socket>) -> Result<RedisSettings, String> {
    let scheme = text.split_once("://").map(|(scheme, _)| scheme);
    let is_of = |kind: &str| scheme.is_some_and(|scheme| scheme.ends_with(kind));
    match kind {
        Kind::Cluster if !is_of("-cluster") => {
            let nodes = list(text, redis::REDIS_PORT)?;
            let mut redis = RedisSettings::new(Topology::Cluster(nodes.servers));
            (redis.auth, redis.tls) = (nodes.login, nodes.tls);
            Ok(redis)
        }
        Kind::Sentinel if !is_of("-sentinel") => {
            let (master, sentinels) = redis::sentinel_list(text)?;
            let nodes = list(sentinels, redis::SENTINEL_PORT)?;
            let (master, sentinels) = (master.to_owned(), nodes.servers);
            let mut redis = RedisSettings::new(Topology::Sentinel { master, sentinels });
            // As in envoyproxy/ratelimit: the login of the sentinels, not that of the servers they name.
            (redis.sentinel_auth, redis.tls) = (nodes.login, nodes.tls);
            Ok(redis)
        }
        Kind::Single if scheme.is_none() => match (socket, text.starts_with('/')) {
            (Some(Socket::Unix), false) => Err("with the socket type unix, allowed is the path of a socket".into()),
            (Some(Socket::Tcp), true) => Err("with the socket type tcp, allowed is host:port".into()),
            _ => redis::plain_address(text).map(RedisSettings::new),
        },
        Kind::Single | Kind::Cluster | Kind::Sentinel => RedisSettings::from_url(text),
    }
}

/// Several servers, and what their URLs say of all of them.
struct Nodes {
    servers: Vec<HostPort>,
    login: Option<RedisAuth>,
    tls: Option<RedisTls>,
}

/// `host:port` or `redis://user:password@host:port`, separated by commas.
fn list(text: &str, default_port: u16) -> Result<Nodes, String> {
    if !text.contains("://") {
        return Ok(Nodes {
            servers: redis::servers(text, default_port)?,
            login: None,
            tls: None,
        });
    }
    let allowed = "allowed is host:port,host:port or redis://user:password@host:port,…, with one login for all";
    let mut of_all: Option<RedisSettings> = None;
    let mut servers = Vec::new();
    for node in text.split(',').map(str::trim).filter(|node| !node.is_empty()) {
        if !node.contains("://") {
            servers.push(redis::host_port(node, default_port)?);
            continue;
        }
        let node = RedisSettings::from_url(node)?;
        let first = of_all.get_or_insert_with(|| node.clone());
        match node.topology {
            Topology::Single(server) if node.auth == first.auth && node.tls == first.tls && node.database == 0 => {
                servers.push(server);
            }
            _ => return Err(allowed.into()),
        }
    }
    let (login, tls) = of_all.map_or((None, None), |node| (node.auth, node.tls));
    Ok(Nodes { servers, login, tls })
}

fn tls_files(reader: &mut Reader<'_>) -> RedisTls {
    let [ca, cert, key, _] = TLS_NAMES.map(|name| reader.path(name));
    let skip_hostname = reader.truth("REDIS_TLS_SKIP_HOSTNAME_VERIFICATION");
    RedisTls {
        client: ClientTls {
            ca,
            identity: cert.zip(key),
            server_name: None,
        },
        skip_hostname,
    }
}
