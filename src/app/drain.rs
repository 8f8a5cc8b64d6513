//! The end of the process, and how health checkers hear of it.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::admin::Health;
use crate::config::settings::ProcessLimits;
use crate::service::server::GrpcHealth;

use super::AppError;
use super::stores::Unsent;

/// Redis is told what it has missed for this long at least, also where connections have used up the drain timeout.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Tells gRPC health checkers whenever the verdict changes.
pub(super) fn mirror_health(tasks: &mut JoinSet<()>, mut verdict: watch::Receiver<bool>, grpc: GrpcHealth) {
    tasks.spawn(async move {
        loop {
            let healthy = *verdict.borrow_and_update();
            grpc.set(healthy).await;
            if verdict.changed().await.is_err() {
                return;
            }
        }
    });
}

/// Waits for the end: a signal, then the drain, and what Redis has still to be told; or a server that fails.
pub(super) async fn run(
    mut servers: JoinSet<Result<(), AppError>>,
    shutdown: impl Future<Output = ()>,
    health: &Health,
    stop: &CancellationToken,
    limits: &ProcessLimits,
    unsent: Unsent,
) -> Result<(), AppError> {
    tokio::select! {
        () = shutdown => {}
        failed = finished(&mut servers) => return failed,
    }
    health.update(|conditions| conditions.draining = true);
    tracing::info!(delay = ?limits.drain_delay, timeout = ?limits.drain_timeout, "draining");
    tokio::time::sleep(limits.drain_delay).await;
    stop.cancel();
    let deadline = Instant::now() + limits.drain_timeout;
    let drained = async {
        while !servers.is_empty() {
            finished(&mut servers).await?;
        }
        Ok(())
    };
    let result = match tokio::time::timeout_at(deadline, drained).await {
        Ok(result) => result,
        Err(_) => {
            tracing::warn!("connections were still open at the end of the drain timeout");
            Ok(())
        }
    };
    unsent.send(deadline.max(Instant::now() + LAST_WORD)).await;
    result
}

async fn finished(servers: &mut JoinSet<Result<(), AppError>>) -> Result<(), AppError> {
    match servers.join_next().await {
        Some(Ok(result)) => result,
        Some(Err(error)) => {
            tracing::error!(%error, "a listener's task ended");
            Err(AppError::Http(std::io::Error::other(error)))
        }
        None => Ok(()),
    }
}
