//! Transport: ports, their connections, and the bounds on both. It does not depend on what requests contain.
//!
//! | module | what is in it |
//! |---|---|
//! | [`listener`] | listening sockets: bind and accept |
//! | [`limiter`] | how many connections a port holds, and which one is closed at the bound |
//! | [`body_limit`] | time and memory of request bodies that have not arrived completely |
//! | [`stalled`] | the timeout for clients that do not read their responses |
//! | `writer` | coalescing writer of an HTTP/2 connection |
//! | `authority`, `resets` | accepts names of clusters in `:authority`; counts streams that are refused as malformed |
//! | [`cores`] | one single-threaded runtime for each core |
//! | [`background`] | one thread of lower priority |
//! | [`tls`] | TLS handshakes, with certificate reload |
//! | `plain` | refuses plain HTTP on a port that speaks TLS |
//! | [`http2`] | one HTTP/2 connection |
//! | [`grpc`] | the gRPC port: all of the above |
//! | [`http`] | an HTTP port |
//! | [`unserved`] | counts calls that no service takes |

mod authority;
pub mod background;
pub mod body_limit;
pub mod cores;
pub mod grpc;
pub mod http;
pub mod http2;
pub mod limiter;
pub mod listener;
mod plain;
mod resets;
pub mod stalled;
pub mod tls;
pub mod unserved;
mod writer;
