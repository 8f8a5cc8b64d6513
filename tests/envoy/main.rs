//! A real Envoy in front of the real binary.

#[path = "../support/mod.rs"]
mod support;

mod config;
mod demo;
mod limits;
mod seam;
mod timeout;
