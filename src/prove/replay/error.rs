//! Why nothing was replayed.

use std::path::PathBuf;

use crate::config::ConfigErrors;
use crate::prove::envoy::EnvoyError;

use super::input::InputError;

/// Why nothing was replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The rules are wrong.
    #[error("{}", .0.render(false))]
    Config(ConfigErrors),
    /// Envoy's configuration cannot be evaluated.
    #[error("{path}: {error}", path = path.display())]
    Envoy {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        error: EnvoyError,
    },
    /// The format is wrong.
    #[error("--format: {0}")]
    Format(String),
    /// A log cannot be read.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The engine cannot be set up.
    #[error("the engine cannot be set up: {0}")]
    Engine(String),
}
