//! What the test binaries share: real processes, and small clients for them.
//!
//! Included with `#[path = "../support/mod.rs"] mod support;`.
#![allow(dead_code, reason = "every test binary includes all of it and uses its part")]
#![allow(clippy::expect_used, reason = "a test that cannot set its scene fails, and says why")]

pub mod ads;
pub mod certs;
pub mod clock;
pub mod envoy;
pub mod http;
pub mod process;
pub mod ratelimit;
pub mod recorder;
pub mod redis;
pub mod sluicegate;
pub mod upstream;
