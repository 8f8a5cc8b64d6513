//! JSON bodies, bounded.

use axum::extract::{FromRequest, Request};
use axum::http::{HeaderValue, StatusCode, header};
use serde::de::DeserializeOwned;

use super::Api;
use super::problem::Problem;

/// Longest body, in bytes.
const MAX_BYTES: usize = 64 << 10;

/// A body of this shape.
pub(super) struct Body<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Api> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &Api) -> Result<Self, Problem> {
        let kind = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
        // Nothing that a form of another site can send.
        let essence = kind.and_then(|kind| kind.split(|byte| *byte == b';').next());
        if !essence.is_some_and(|essence| essence.trim_ascii().eq_ignore_ascii_case(b"application/json")) {
            let detail = "the body must be JSON: Content-Type: application/json";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
        }
        let bytes = axum::body::to_bytes(request.into_body(), MAX_BYTES)
            .await
            .map_err(|_| {
                let detail = format!("the body does not arrive, or has more than {MAX_BYTES} bytes");
                Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
            })?;
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|error| Problem::bad(format!("the body: {error}")))
    }
}
