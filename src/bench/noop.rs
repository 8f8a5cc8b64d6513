//! The floor: a server that decodes the request, answers OK with one status, and does nothing else.

use tonic::{Request, Response, Status};

use crate::proto::envoy::service::ratelimit::v3::rate_limit_response::{
    Code, DescriptorStatus, RateLimit, rate_limit::Unit,
};
use crate::proto::envoy::service::ratelimit::v3::{
    RateLimitRequest, RateLimitResponse, rate_limit_service_server::RateLimitService,
};

/// Answers every request with OK and one status, of about the size that a real answer has.
#[derive(Debug, Clone, Copy, Default)]
pub struct Noop;

#[tonic::async_trait]
impl RateLimitService for Noop {
    async fn should_rate_limit(
        &self,
        request: Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        drop(request.into_inner());
        let status = DescriptorStatus {
            code: Code::Ok.into(),
            current_limit: Some(RateLimit {
                requests_per_unit: 1_000_000,
                unit: Unit::Minute.into(),
                ..RateLimit::default()
            }),
            limit_remaining: 999_999,
            duration_until_reset: Some(prost_types::Duration { seconds: 59, nanos: 0 }),
        };
        Ok(Response::new(RateLimitResponse {
            overall_code: Code::Ok.into(),
            statuses: vec![status],
            ..RateLimitResponse::default()
        }))
    }
}
