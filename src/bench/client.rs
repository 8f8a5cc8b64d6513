//! One call: plain HTTP/2 frames, and of the answer no more than the overall code.

use bytes::{Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::BenchError;
use super::answer::Answer;
use super::service::Service;
use super::target::Target;

/// Flow control windows, large enough that no answer waits for one.
const WINDOW_BYTES: u32 = 1 << 24;
/// Answers above this are not read to their end.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// The connection is gone; a new one is needed.
#[derive(Debug)]
pub struct Closed {
    /// Whether the server may have begun to work on this call: it was sent, and no GOAWAY says that it was left out.
    pub under_way: bool,
}

impl Closed {
    const UNSENT: Self = Self { under_way: false };
}

/// A connection's handle for one stream of calls; clone it for more.
#[derive(Debug, Clone)]
pub struct Client {
    requests: SendRequest<Bytes>,
    service: Service,
    uri: Uri,
    headers: HeaderMap,
}

/// What drives a connection; to be spawned.
pub type Driver = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

impl Client {
    /// Connects to a service of `target`; `tls` is for those that are [`Target::Tls`].
    ///
    /// # Errors
    /// When the connection or the TLS or HTTP/2 handshake fails.
    pub async fn connect(
        target: &Target,
        tls: Option<&TlsConnector>,
        service: Service,
        grpc_timeout_ms: Option<u32>,
    ) -> Result<(Self, Driver), BenchError> {
        let failed = |reason: String| BenchError::Connect {
            target: target.to_string(),
            reason,
        };
        let scheme = if tls.is_some() { "https" } else { "http" };
        let (send, driver) = open(target, tls).await.map_err(failed)?;
        let uri = Uri::builder()
            .scheme(scheme)
            .authority(target.authority())
            .path_and_query(service.path())
            .build()
            .map_err(|e| BenchError::Argument(e.to_string()))?;
        let client = Self {
            requests: send,
            service,
            uri,
            headers: headers(grpc_timeout_ms),
        };
        Ok((client, driver))
    }

    /// Sends one request frame and reads its answer, and of that the id of its hold.
    ///
    /// # Errors
    /// [`Closed`] when the connection takes no more calls.
    pub async fn hold(&mut self, frame: Bytes) -> Result<Answer, Closed> {
        self.send(frame, |service, message| match service.read(message) {
            Answer::Ok => Service::hold_id(message).map_or(Answer::Ok, Answer::Held),
            other => other,
        })
        .await
    }

    /// Sends one request frame and reads its answer.
    ///
    /// # Errors
    /// [`Closed`] when the connection takes no more calls.
    pub async fn call(&mut self, frame: Bytes) -> Result<Answer, Closed> {
        self.send(frame, Service::read).await
    }

    async fn send(&mut self, frame: Bytes, understand: impl Fn(Service, &[u8]) -> Answer) -> Result<Answer, Closed> {
        std::future::poll_fn(|cx| self.requests.poll_ready(cx))
            .await
            .map_err(|_| Closed::UNSENT)?;
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        let Ok((answer, mut body)) = self.requests.send_request(request, false) else {
            return Err(Closed::UNSENT);
        };
        if body.send_data(frame, true).is_err() {
            return Ok(Answer::Failed("reset".to_owned()));
        }
        match read(answer).await {
            Ok(Ok(message)) => Ok(understand(self.service, &message)),
            Ok(Err(failed)) => Ok(failed),
            Err(error) if error.is_go_away() => Err(Closed::UNSENT),
            Err(error) if error.is_io() => Err(Closed { under_way: true }),
            Err(_) => Ok(Answer::Failed("reset".to_owned())),
        }
    }
}

/// An HTTP/2 connection over whatever the target asks for.
async fn open(target: &Target, tls: Option<&TlsConnector>) -> Result<(SendRequest<Bytes>, Driver), String> {
    match target {
        Target::Tcp(authority) => handshake(dial(authority).await?).await,
        Target::Tls(authority) => {
            let connector = tls.ok_or("no certificates were read for it")?;
            let name = authority.host().trim_matches(['[', ']']).to_owned();
            let name = ServerName::try_from(name).map_err(|e| e.to_string())?;
            let io = connector.connect(name, dial(authority).await?).await;
            handshake(io.map_err(|e| e.to_string())?).await
        }
        Target::Unix(path) => handshake(UnixStream::connect(path).await.map_err(|e| e.to_string())?).await,
    }
}

async fn dial(authority: &Authority) -> Result<TcpStream, String> {
    let io = TcpStream::connect(authority.as_str())
        .await
        .map_err(|e| e.to_string())?;
    io.set_nodelay(true).map_err(|e| e.to_string())?;
    Ok(io)
}

async fn handshake<T>(io: T) -> Result<(SendRequest<Bytes>, Driver), String>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .enable_push(false);
    let (send, connection) = builder.handshake(io).await.map_err(|e| e.to_string())?;
    Ok((send, Box::pin(async move { connection.await.unwrap_or(()) })))
}

fn headers(grpc_timeout_ms: Option<u32>) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(http::header::TE, HeaderValue::from_static("trailers"));
    headers.insert(http::header::USER_AGENT, HeaderValue::from_static("sluicegate-bench"));
    if let Some(ms) = grpc_timeout_ms
        && let Ok(value) = HeaderValue::from_str(&format!("{ms}m"))
    {
        headers.insert("grpc-timeout", value);
    }
    headers
}

/// Reads headers, message and trailers: the frame of the message, or what the call has come to without one.
async fn read(answer: ResponseFuture) -> Result<Result<Bytes, Answer>, h2::Error> {
    let (head, mut body) = answer.await?.into_parts();
    if head.status != http::StatusCode::OK {
        return Ok(Err(Answer::Failed(format!("http {}", head.status.as_u16()))));
    }
    if let Some(failed) = grpc_failure(&head.headers) {
        return Ok(Err(failed));
    }
    let mut message = Bytes::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        message = join(message, chunk);
        if message.len() > MAX_ANSWER_BYTES {
            return Ok(Err(Answer::Failed("bad answer".to_owned())));
        }
    }
    if let Some(trailers) = body.trailers().await?
        && let Some(failed) = grpc_failure(&trailers)
    {
        return Ok(Err(failed));
    }
    Ok(Ok(message))
}

/// Most answers come in one piece, which is then not copied.
fn join(start: Bytes, rest: Bytes) -> Bytes {
    if start.is_empty() {
        return rest;
    }
    let mut both = BytesMut::from(start);
    both.extend_from_slice(&rest);
    both.freeze()
}

fn grpc_failure(headers: &HeaderMap) -> Option<Answer> {
    let status = headers.get("grpc-status")?;
    if status == "0" {
        return None;
    }
    let code = status
        .to_str()
        .ok()
        .and_then(|text| text.parse::<u8>().ok())
        .filter(|code| *code <= 16);
    Some(Answer::Failed(
        code.map_or_else(|| "bad answer".to_owned(), |c| format!("grpc {c}")),
    ))
}
