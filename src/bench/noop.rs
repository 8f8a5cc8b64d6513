//! The floor: a server that decodes the request, answers OK with one status, and does nothing else.

use std::net::SocketAddr;

use clap::{Args, ValueEnum};
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use super::BenchError;
use crate::net::grpc::PortOptions;
use crate::net::listener::Listener;
use crate::proto::envoy::service::auth::v3::authorization_server::{Authorization, AuthorizationServer};
use crate::proto::envoy::service::auth::v3::{CheckRequest, CheckResponse};
use crate::proto::envoy::service::ratelimit::v3::rate_limit_response::{
    Code, DescriptorStatus, RateLimit, rate_limit::Unit,
};
use crate::proto::envoy::service::ratelimit::v3::{
    RateLimitRequest, RateLimitResponse,
    rate_limit_service_server::{RateLimitService, RateLimitServiceServer},
};
use crate::service::server::GrpcServer;

/// Serves answers that cost nothing: what any server on this gRPC stack must at least cost.
#[derive(Debug, Clone, Args)]
pub struct NoopArgs {
    /// Where to listen; the port must be free.
    #[arg(long, default_value = "127.0.0.1:8081")]
    pub grpc_addr: SocketAddr,

    /// How connections are served.
    #[arg(long, value_enum, default_value_t = Shape::Tonic)]
    pub shape: Shape,
}

/// How connections are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shape {
    /// By tonic's own server on tokio's default runtime: what one gets who writes a tonic server.
    Tonic,
    /// By the listener of `sluicegate serve`.
    Own,
}

/// Serves until the future is dropped.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn serve(args: &NoopArgs) -> Result<(), BenchError> {
    let listener = TcpListener::bind(args.grpc_addr)
        .await
        .map_err(|error| BenchError::Argument(format!("cannot listen on {}: {error}", args.grpc_addr)))?;
    let failed = |error: &dyn std::fmt::Display| BenchError::Runtime(error.to_string());
    match args.shape {
        Shape::Tonic => Server::builder()
            .add_service(RateLimitServiceServer::new(Noop))
            .add_service(AuthorizationServer::new(Noop))
            .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)))
            .await
            .map_err(|error| failed(&error)),
        Shape::Own => {
            let server = GrpcServer::new(PortOptions::default(), Noop, Noop, None)
                .await
                .map_err(|error| failed(&error))?;
            server
                .serve(Listener::Tcp(listener), None, std::future::pending())
                .await
                .map_err(|error| failed(&error))
        }
    }
}

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

#[tonic::async_trait]
impl Authorization for Noop {
    /// An empty message lets the request pass.
    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        drop(request.into_inner());
        Ok(Response::new(CheckResponse::default()))
    }
}
