//! HTTP beside gRPC: health and JSON checks on the public port, metrics and configuration on the admin port.

pub mod health;
pub mod http;
pub mod inspect;
pub mod json;
pub mod probe;

pub use health::Health;
