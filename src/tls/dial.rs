//! Connections to servers of others, plain or TLS.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::Endpoint;
use tower::Service;

use super::{ClientTls, Reloaded, TlsError, reload, san};

/// A server that vanished without a word is noticed after about 30 s. On TCP rather than HTTP/2: gRPC servers in Go
/// cut clients that ping more often than every five minutes.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(15))
    .with_interval(Duration::from_secs(5))
    .with_retries(3);

/// Opens connections to one server; every new one uses the newest certificates. As a `Service` it is a connector for
/// tonic and hyper.
#[derive(Debug, Clone)]
pub struct Dialer {
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
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

impl Connection for Box<dyn Io> {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Dialer {
    /// To `address` (`host:port`). Reads the certificates with `load` ([`super::client_config`] for HTTP/2); `what` names
    /// them in logs. Connects to nothing yet. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`TlsError`] names the file that cannot be used.
    pub fn new(
        what: &'static str,
        address: &str,
        tls: Option<&ClientTls>,
        load: fn(&ClientTls) -> Result<ClientConfig, TlsError>,
    ) -> Result<Self, TlsError> {
        let address = in_ascii(address);
        let tls = match tls.cloned() {
            Some(tls) => {
                let name = san::ascii(tls.server_name.as_deref().unwrap_or_else(|| host(&address))).into();
                let config = Reloaded::start(what, tls.files(), reload::EVERY, move || load(&tls))?;
                Some(Tls {
                    config: Arc::new(config),
                    name,
                })
            }
            None => None,
        };
        Ok(Self {
            address: address.into(),
            tls,
        })
    }

    /// A gRPC endpoint for this server, to be connected with this dialer as its connector.
    ///
    /// # Errors
    /// When the address is none that a URL can hold.
    pub fn endpoint(&self) -> Result<Endpoint, String> {
        let (scheme, authority) = (self.scheme(), &self.address);
        // The connector does TLS itself, so tonic must not: only the requests say https.
        let endpoint = Endpoint::from_shared(format!("http://{authority}")).map_err(|error| error.to_string())?;
        let origin = format!("{scheme}://{authority}")
            .parse()
            .map_err(|error| format!("{error}"))?;
        Ok(endpoint.origin(origin))
    }

    /// What URLs of this server begin with: `http` or `https`.
    #[must_use]
    pub const fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

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

impl Service<Uri> for Dialer {
    type Response = TokioIo<Box<dyn Io>>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let dialer = self.clone();
        Box::pin(async move { dialer.open().await.map(TokioIo::new) })
    }
}

/// `host:port` with the host as DNS writes it.
fn in_ascii(address: &str) -> Cow<'_, str> {
    match address.rsplit_once(':') {
        Some((host, port)) if !host.is_ascii() => format!("{}:{port}", san::ascii(host)).into(),
        _ => Cow::Borrowed(address),
    }
}

/// The host of `host:port`, without the brackets of an IPv6 address.
fn host(server: &str) -> &str {
    let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

/// An error and everything that led to it: tonic's own text is "transport error".
#[must_use]
pub fn with_causes(error: &dyn std::error::Error) -> String {
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
