//! What a user of envoyproxy/ratelimit relies on: its variables, TLS, its control plane, its answers.

#[path = "../support/mod.rs"]
mod support;

mod settings;
mod tls;
mod xds;
