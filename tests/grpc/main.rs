//! The gRPC surface: the wire format, and the service over a real connection.

#![allow(clippy::expect_used, reason = "a test that cannot go on says why")]

#[path = "../support/mod.rs"]
mod support;

mod announced;
mod authz;
mod candidates;
mod holds;
mod outage;
mod permits;
mod server;
mod service;
mod several;
mod wire;
