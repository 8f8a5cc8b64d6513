//! Rules proved before they are enforced: tests of rules, replay of access logs, what a change means.
//!
//! All of it asks the [`Engine`](crate::engine::Engine) itself, on a memory store and a clock that the caller moves; no
//! module here has arithmetic of its own for limits.
//!
//! | module | what is in it |
//! |---|---|
//! | [`limiter`] | an engine on a virtual clock |
//! | [`http`] | an HTTP request as a test or a log line describes it |
//! | [`envoy`] | the descriptors that an Envoy's routes make |
//! | [`mod@map`] | from an HTTP request to descriptors |
//! | [`explain`] | a decision in words |
//! | [`diff`] | `sluicegate check --diff`: what a change of rules means |
//! | [`replay`] | `sluicegate replay` |
//! | [`rule_tests`] | `sluicegate test` |

pub mod diff;
pub mod envoy;
pub mod explain;
pub mod http;
pub mod limiter;
pub mod map;
pub mod replay;
pub mod rule_tests;
