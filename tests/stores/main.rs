//! The stores by themselves: what is true of one store only. What is true of all is in the conformance suite.
#![allow(clippy::expect_used, reason = "a test that cannot go on says why and stops")]

#[path = "../support/mod.rs"]
mod support;

mod limits;
mod memory;
mod redis;
