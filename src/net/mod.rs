//! Transport: ports, their connections, and the bounds on both. Nothing here knows what a request asks for.
//!
//! | module | what is in it |
//! |---|---|
//! | [`listener`] | listening sockets: bind and accept |
//! | [`limiter`] | how many connections a port holds, and which one is closed at the bound |
//! | [`body_limit`] | time and memory of request bodies that have not arrived completely |
//! | [`stalled`] | the timeout for clients that do not read their responses |
//! | `writer` | coalescing writer of an HTTP/2 connection |
//! | `authority`, `resets` | names of clusters in `:authority`, and streams that are refused as malformed |
//! | [`cores`] | one single-threaded runtime for each core |
//! | [`aside`] | one thread that stands back behind them |
//! | [`tls`] | TLS handshakes with certificates that are read again |
//! | [`http2`] | one HTTP/2 connection |
//! | [`grpc`] | the gRPC port: all of the above |
//! | [`http`] | an HTTP port |

pub mod aside;
mod authority;
pub mod body_limit;
pub mod cores;
pub mod grpc;
pub mod http;
pub mod http2;
pub mod limiter;
pub mod listener;
mod resets;
pub mod stalled;
pub mod tls;
mod writer;
