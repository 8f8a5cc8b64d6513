//! Gives back what nobody asks for any more.

use std::sync::Weak;
use std::time::Duration;

use crate::store::Store;
use crate::store::turns::Turns;

use super::Lease;

/// Time between two sweeps: how long an unused lease stays counted beyond its end.
const EVERY: Duration = Duration::from_millis(250);

/// Sweeps until the layer is gone. The composition root spawns it.
pub async fn sweep_forever<S: Store>(layer: Weak<Lease<S>>) {
    let mut turns = Turns::new(layer, EVERY);
    while let Some(layer) = turns.next().await {
        if let Err(error) = layer.sweep().await {
            tracing::debug!(%error, "unused hits could not be given back; they end with their slice");
        }
    }
}
