//! What a call came to, whichever service was called.

/// What a call came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Overall code OK.
    Ok,
    /// The same, with the id of a hold; only where [`Client::hold`](super::client::Client::hold) asked for it.
    Held(String),
    /// Overall code `OVER_LIMIT`.
    OverLimit,
    /// Another overall code.
    Unknown,
    /// No decision; the text is one of a small set (`grpc 14`, `http 503`, `reset`, `bad answer`).
    Failed(String),
}
