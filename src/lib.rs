//! sluicegate: a rate limiter for Envoy whose limits are never passed.
//!
//! Data flows one way: request → [`service`] → [`engine`] → [`rules`] (which rule, which counter) → [`store`] →
//! outcome → [`engine`] (decision) → [`service`] → response. Modules may use only what stands above them in this list:
//!
//! | module | what is in it |
//! |---|---|
//! | [`model`] | the vocabulary: descriptor, limit, key, check, outcome, time |
//! | [`mapping`] | from an HTTP request's attributes (`ext_authz`) to descriptors, pure |
//! | [`rules`] | compiled rules and matching, pure |
//! | [`algorithms`] | each limit algorithm, pure, in Rust and in Lua |
//! | [`quota`] | quotas that Envoys enforce themselves (RLQS): sizes, and the account of a bucket on a stream, pure |
//! | [`tls`] | certificates from files, read again when they change; connections with them |
//! | [`proto`], [`proto_codec`] | the wire types, and their codec |
//! | [`config`] | settings; rules files: YAML → compile → watch |
//! | [`store`] | where counters live: memory, Redis, and the layers over them |
//! | [`telemetry`] | logs, metrics with bounded labels, traces |
//! | [`net`] | transport: listeners, connection limits, HTTP/2 and HTTP connections, per-core runtimes |
//! | [`sources`] | plans from files, Redis and URLs, kept fresh |
//! | [`engine`] | plan → store → decision: the one thing that every service calls |
//! | [`prove`] | rule tests, replay of access logs, what a change of rules means: the engine on a virtual clock |
//! | [`service`] | gRPC services: wire ↔ model |
//! | [`admin`] | HTTP: health, metrics, configuration, JSON |
//! | [`api`] | HTTP: the operator's API, `/api/v1` |
//! | [`app`] | the composition root: the only module that names concrete types |
//! | [`cli`] | subcommands and their flags |
//! | `bench` | with the feature `bench`: the binary `sluicegate-bench`, a load generator and the no-op server it compares with |
//!
//! `tests/tidy` holds the imports against this table. The words are explained in `docs/glossary.md`.

pub mod admin;
pub mod algorithms;
pub mod api;
pub mod app;
#[cfg(feature = "bench")]
pub mod bench;
pub mod cli;
pub mod config;
pub mod engine;
pub mod mapping;
pub mod model;
pub mod net;
pub mod proto;
pub mod proto_codec;
pub mod prove;
pub mod quota;
pub mod rules;
pub mod service;
pub mod sources;
pub mod store;
pub mod telemetry;
pub mod tls;
