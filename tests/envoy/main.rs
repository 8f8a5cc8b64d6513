//! A real Envoy in front of the real binary.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests panic on purpose, and print what they measured"
)]

#[path = "../support/mod.rs"]
mod support;

mod authority;
mod authz;
mod budgets;
mod concurrency;
mod config;
mod costs;
mod demo;
mod limits;
mod recipes;
mod rlqs;
mod seam;
mod switches;
mod timeout;
