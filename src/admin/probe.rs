//! Asks a running process how it is: what a container's health check runs, where there is neither shell nor curl.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Most bytes that are read of an answer.
const MAX_ANSWER_BYTES: usize = 4096;

/// Why a process is not healthy.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Nobody listens, or nobody speaks HTTP.
    #[error("{0} does not answer: {1}")]
    Unreachable(SocketAddr, String),
    /// It took too long.
    #[error("{0} did not answer within {1:?}")]
    Late(SocketAddr, Duration),
    /// It says so itself.
    #[error("{0} is not healthy: {1}")]
    Unhealthy(SocketAddr, String),
}

/// Asks `/healthcheck` of the process whose HTTP port is `listens_on` (an unspecified address means loopback).
///
/// # Errors
/// [`ProbeError`] unless the answer is 200 within `timeout`.
pub async fn probe(listens_on: SocketAddr, timeout: Duration) -> Result<(), ProbeError> {
    let address = SocketAddr::new(reachable(listens_on.ip()), listens_on.port());
    let (status, text) = tokio::time::timeout(timeout, ask(address))
        .await
        .map_err(|_| ProbeError::Late(address, timeout))?
        .map_err(|error| ProbeError::Unreachable(address, error.to_string()))?;
    if status == StatusCode::OK {
        Ok(())
    } else {
        // Whatever listens there may send anything: no control characters reach the terminal.
        Err(ProbeError::Unhealthy(
            address,
            format!("{status}: {}", text.escape_debug()),
        ))
    }
}

async fn ask(address: SocketAddr) -> Result<(StatusCode, String), Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let request = Request::get("/healthcheck")
        .header(header::HOST, address.to_string())
        .header(header::CONNECTION, "close")
        .body(Body::empty())?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = axum::body::to_bytes(Body::new(answer.into_body()), MAX_ANSWER_BYTES).await?;
    driver.abort();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

/// Where a process that listens on `ip` can be reached from the same machine.
const fn reachable(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    }
}
