//! A load generator for any server with Envoy's gRPC interface for rate limits or external authorization.
//!
//! Built to cost little beside the server that it measures: requests are encoded once and only their key digits are
//! patched ([`template`]), calls go over plain HTTP/2 frames ([`client`]) and only the overall code of an answer is
//! read. Each connection carries a number of streams that call one after the other (closed loop); with a rate, calls
//! start on a fixed schedule ([`pace`]) and latency counts from the scheduled moment, so that a server that stalls
//! cannot hide it (no coordinated omission).
//!
//! | module | what is in it |
//! |---|---|
//! | [`command`] | the command line of the binary |
//! | [`args`] | the flags of the load generator |
//! | [`target`] | where to connect |
//! | [`keys`] | which key a call asks for |
//! | [`service`] | what is called, and how its answers are read |
//! | [`template`] | the encoded request |
//! | [`client`] | one call over HTTP/2 |
//! | [`answer`] | what a call came to |
//! | [`pace`] | the schedule of an open loop |
//! | [`load`] | connections, streams, warm-up and measurement |
//! | [`cpu`] | CPU time of local processes, from the operating system |
//! | [`report`] | counts and latencies, as text and JSON |
//! | [`memory`] | what a counter costs in memory |
//! | [`holds`] | what many open holds cost |
//! | [`plans`] | what a large source of plans costs |
//! | [`ablation`] | the server, without some of its parts |
//! | [`noop`] | the floor: a server that decodes, answers OK, and does nothing else |

use thiserror::Error;

pub mod ablation;
pub mod answer;
pub mod args;
mod check;
pub mod client;
pub mod command;
pub mod cpu;
pub mod holds;
pub mod keys;
pub mod load;
pub mod memory;
pub mod noop;
pub mod pace;
pub mod plans;
pub mod report;
pub mod service;
pub mod target;
pub mod template;

pub use args::BenchArgs;
pub use load::run;
pub use report::Report;

/// Why a measurement could not be made. Failed calls are not among them: they are counted in the [`Report`].
#[derive(Debug, Error)]
pub enum BenchError {
    /// A flag, or a combination of flags, that makes no sense; the text says how to fix it.
    #[error("{0}")]
    Argument(String),
    /// No connection could be made to a target at the start.
    #[error("cannot connect to {target}: {reason}")]
    Connect {
        /// The target as it was given.
        target: String,
        /// What the operating system or the HTTP/2 handshake said.
        reason: String,
    },
    /// A process whose CPU time was asked for cannot be read.
    #[error("cannot read the CPU time of process {pid}: {reason}")]
    Cpu {
        /// Process id.
        pid: u32,
        /// What the operating system said.
        reason: String,
    },
    /// A file that was asked for cannot be written.
    #[error("cannot write {path}: {reason}")]
    Write {
        /// The file as it was given.
        path: String,
        /// What the operating system said.
        reason: String,
    },
    /// A thread or runtime could not be started, or died.
    #[error("the load generator failed: {0}")]
    Runtime(String),
}
