//! Connections to the control plane, plain or TLS.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::super::settings::XdsSettings;
use crate::tls::{Reloaded, TlsError, client_config, reload};

/// A server that vanished without a word is noticed after about 30 s. On TCP rather than HTTP/2: gRPC servers in Go
/// cut clients that ping more often than every five minutes.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(15))
    .with_interval(Duration::from_secs(5))
    .with_retries(3);

/// Opens connections; every new one uses the newest certificates.
#[derive(Debug)]
pub(super) struct Connector {
    target: Target,
    connect_timeout: Duration,
}

/// What a connection needs to know.
#[derive(Debug, Clone)]
struct Target {
    /// `host:port`
    address: Arc<str>,
    tls: Option<Tls>,
}

#[derive(Debug, Clone)]
struct Tls {
    config: Arc<Reloaded<ClientConfig>>,
    /// What the server's certificate must carry.
    name: Arc<str>,
}

/// A connection, whichever kind.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

impl Connector {
    /// Reads the certificates.
    pub(super) fn new(settings: &XdsSettings) -> Result<Self, TlsError> {
        let tls = match &settings.tls {
            Some(tls) => {
                let name = tls
                    .server_name
                    .as_deref()
                    .unwrap_or_else(|| host(&settings.server))
                    .into();
                let (files, tls) = (tls.files(), tls.clone());
                let load = move || client_config(&tls);
                let config = Reloaded::start("control plane client's certificates", files, reload::EVERY, load)?;
                Some(Tls {
                    config: Arc::new(config),
                    name,
                })
            }
            None => None,
        };
        let target = Target {
            address: settings.server.as_str().into(),
            tls,
        };
        Ok(Self {
            target,
            connect_timeout: settings.connect_timeout,
        })
    }

    /// One connection; the error says what failed.
    pub(super) async fn connect(&self) -> Result<Channel, String> {
        let scheme = if self.target.tls.is_some() { "https" } else { "http" };
        let authority = &self.target.address;
        // The connector does TLS itself, so tonic must not: only the requests say https.
        let endpoint = Endpoint::from_shared(format!("http://{authority}")).map_err(|error| error.to_string())?;
        let origin = format!("{scheme}://{authority}")
            .parse()
            .map_err(|error| format!("{error}"))?;
        let target = self.target.clone();
        let open = service_fn(move |_| {
            let target = target.clone();
            async move { target.open().await.map(TokioIo::new) }
        });
        timeout(
            self.connect_timeout,
            endpoint.origin(origin).connect_with_connector(open),
        )
        .await
        .map_err(|_| format!("no connection within {:?}", self.connect_timeout))?
        .map_err(|error| with_causes(&error))
    }
}

impl Target {
    async fn open(&self) -> io::Result<Box<dyn Io>> {
        let tcp = TcpStream::connect(&*self.address).await?;
        tcp.set_nodelay(true)?;
        SockRef::from(&tcp).set_tcp_keepalive(&KEEPALIVE)?;
        let Some(tls) = &self.tls else {
            return Ok(Box::new(tcp));
        };
        let name = ServerName::try_from(tls.name.to_string()).map_err(io::Error::other)?;
        let stream = TlsConnector::from(tls.config.get()).connect(name, tcp).await?;
        Ok(Box::new(stream))
    }
}

/// The host of `host:port`, without the brackets of an IPv6 address.
fn host(server: &str) -> &str {
    let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

/// An error and everything that led to it: tonic's own text is "transport error".
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
