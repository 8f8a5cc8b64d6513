//! From an HTTP request to descriptors as an Envoy's routes make them: its bootstrap (or `/config_dump`) is read, the
//! route of a request is found, and the route's `rate_limits` become the actions of [`mapping`](crate::mapping).
//!
//! What cannot be evaluated is refused by name, and only for requests that need it: nothing is guessed.
//!
//! | module | what is in it |
//! |---|---|
//! | [`json`] | fields by their protobuf names, in either spelling |
//! | [`bootstrap`] | the listener with the rate limit filters, and its routes |
//! | [`table`], [`route`] | virtual hosts and routes |
//! | [`limits`], [`actions`] | which `rate_limits` apply; one action |
//! | [`matchers`] | headers, query parameters, texts |
//! | [`view`] | the request as Envoy's filters see it |

mod actions;
mod bootstrap;
mod json;
mod limits;
mod matchers;
mod route;
mod table;
mod view;

pub use table::{FilterCall, Routes};

/// Why Envoy's configuration, or one request under it, cannot be evaluated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvoyError {
    /// The file cannot be read, or is neither YAML nor JSON.
    #[error("{0}")]
    Unreadable(String),
    /// Something in it is wrong or missing.
    #[error("{place}: {reason}")]
    Wrong {
        /// Where in the configuration.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// Envoy does something there that is not known here.
    #[error("{place}: cannot be evaluated: {reason}")]
    Unsupported {
        /// Where in the configuration.
        place: String,
        /// What it is.
        reason: String,
    },
    /// Envoy would change the request before it looks for its route.
    #[error("the request cannot be evaluated: {0}")]
    Request(String),
}

impl EnvoyError {
    fn wrong(place: &str, reason: impl Into<String>) -> Self {
        Self::Wrong {
            place: place.to_owned(),
            reason: reason.into(),
        }
    }

    fn unsupported(place: &str, reason: impl Into<String>) -> Self {
        Self::Unsupported {
            place: place.to_owned(),
            reason: reason.into(),
        }
    }
}
