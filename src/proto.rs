//! Wire types generated from `proto/`: our own subset of the Envoy API, same packages, names and numbers.

#![allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "generated"
)]

tonic::include_proto!("proto");

/// The compiled descriptors, for gRPC reflection and protobuf JSON.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
