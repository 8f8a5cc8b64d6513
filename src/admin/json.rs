//! `POST /json`: the rate limit service as protobuf JSON, for callers without gRPC and for people with `curl`.

use std::error::Error;

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use tonic::{Code, Status};

use crate::proto::DESCRIPTORS;
use crate::proto::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse, rate_limit_response};
use crate::service::rls::{Caller, RateLimitService};
use crate::telemetry::ServiceKind;

/// Largest body, in bytes.
const MAX_BYTES: usize = 1 << 20;
/// So much of a larger one is read and thrown away, since many clients listen only when they have sent all.
const MAX_READ_BYTES: usize = 8 << 20;

/// The service behind the endpoint, with the descriptors that JSON is read by.
#[derive(Clone)]
pub struct JsonService {
    service: RateLimitService,
    request: MessageDescriptor,
    response: MessageDescriptor,
}

/// The binary's own descriptors are broken; a mistake in the build.
#[derive(Debug, thiserror::Error)]
pub enum JsonServiceError {
    /// They cannot be read.
    #[error(transparent)]
    Descriptors(#[from] prost_reflect::DescriptorError),
    /// They lack the rate limit service.
    #[error("the rate limit service is missing")]
    Missing,
}

impl JsonService {
    /// Reads the compiled descriptors.
    ///
    /// # Errors
    /// When the binary's own descriptors are broken.
    pub fn new(service: RateLimitService) -> Result<Self, JsonServiceError> {
        let pool = DescriptorPool::decode(DESCRIPTORS)?;
        let find = |name: &str| pool.get_message_by_name(&format!("envoy.service.ratelimit.v3.{name}"));
        match (find("RateLimitRequest"), find("RateLimitResponse")) {
            (Some(request), Some(response)) => Ok(Self {
                service,
                request,
                response,
            }),
            _ => Err(JsonServiceError::Missing),
        }
    }

    fn read(&self, body: &[u8]) -> Result<RateLimitRequest, String> {
        let mut json = serde_json::Deserializer::from_slice(body);
        let message = DynamicMessage::deserialize(self.request.clone(), &mut json).map_err(|e| e.to_string())?;
        json.end().map_err(|e| e.to_string())?;
        message.transcode_to().map_err(|e| e.to_string())
    }

    fn write(&self, response: &RateLimitResponse) -> Result<Vec<u8>, String> {
        let message = DynamicMessage::decode(self.response.clone(), response.encode_to_vec().as_slice())
            .map_err(|e| e.to_string())?;
        serde_json::to_vec(&message).map_err(|e| e.to_string())
    }
}

/// 200 for OK, 429 for OVER_LIMIT, 400 for a body that is no request, 408 for one that does not arrive in time, 413 for
/// one that is too large, 503 while there are no rules or too many bodies are waited for.
pub async fn check(State(json): State<JsonService>, request: Request) -> Response {
    let body = match arrived(request.into_body()).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let request = match json.read(&body) {
        Ok(request) => request,
        Err(error) => {
            return text(
                StatusCode::BAD_REQUEST,
                format!("not a RateLimitRequest in JSON: {error}\n"),
            );
        }
    };
    let response = match json.service.answer(ServiceKind::Json, request, Caller::default()).await {
        Ok(response) => response,
        Err(status) => return text(http_status(status.code()), format!("{}\n", status.message())),
    };
    let over = response.overall_code == i32::from(rate_limit_response::Code::OverLimit);
    let status = if over {
        StatusCode::TOO_MANY_REQUESTS
    } else {
        StatusCode::OK
    };
    match json.write(&response) {
        Ok(body) => (status, [(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => {
            tracing::error!(%error, "an answer could not be written as JSON");
            text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"))
        }
    }
}

/// The whole body; of one that is too large nothing is kept.
async fn arrived(body: Body) -> Result<Vec<u8>, Response> {
    let too_large = || {
        text(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("a body may have {MAX_BYTES} bytes\n"),
        )
    };
    if body.size_hint().lower() > MAX_READ_BYTES as u64 {
        return Err(too_large());
    }
    let (mut parts, mut kept, mut read) = (body.into_data_stream(), Vec::new(), 0_usize);
    while let Some(part) = parts.next().await {
        let part = part.map_err(|error| not_arrived(&error))?;
        read = read.saturating_add(part.len());
        if read <= MAX_BYTES {
            kept.extend_from_slice(&part);
        } else {
            kept = Vec::new();
        }
        if read > MAX_READ_BYTES {
            break;
        }
    }
    if read > MAX_BYTES { Err(too_large()) } else { Ok(kept) }
}

/// Why there is no body: the port's bounds say so as a gRPC status; else the client broke off.
fn not_arrived(error: &(dyn Error + 'static)) -> Response {
    let mut causes = std::iter::successors(Some(error), |error: &&(dyn Error + 'static)| (*error).source());
    let status = causes.find_map(|error| error.downcast_ref::<Status>());
    let code = status.map_or(Code::InvalidArgument, Status::code);
    let message = status.map_or_else(|| error.to_string(), |status| status.message().to_owned());
    text(http_status(code), format!("{message}\n"))
}

const fn http_status(code: Code) -> StatusCode {
    match code {
        Code::InvalidArgument => StatusCode::BAD_REQUEST,
        Code::DeadlineExceeded => StatusCode::REQUEST_TIMEOUT,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn text(status: StatusCode, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response()
}
