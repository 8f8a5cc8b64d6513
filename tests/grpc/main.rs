//! The gRPC surface: the wire format, and the service over a real connection.

mod server;
mod service;
mod wire;
