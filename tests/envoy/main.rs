//! A real Envoy in front of the real binary.

#[path = "../support/mod.rs"]
mod support;

mod authz_mapping;
mod config;
mod demo;
mod limits;
mod seam;
mod timeout;
