//! What a user of envoyproxy/ratelimit relies on: its variables, TLS, its control plane, its answers.
#![allow(clippy::expect_used, reason = "a test that cannot go on says why and stops")]

#[path = "../support/mod.rs"]
mod support;

mod answers;
mod changes;
mod conformance;
mod gateway;
mod health;
mod logs;
mod metrics;
mod per_second;
mod public_configs;
mod quotas;
mod rotation;
mod settings;
mod silence;
mod statsd;
mod tls;
mod traces;
mod trust;
mod trust_xds;
mod xds;
mod xds_rules;
