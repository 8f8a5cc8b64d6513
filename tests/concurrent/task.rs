//! `tokio::task` and `tokio::spawn`.

pub use shuttle::future::{JoinHandle, spawn, yield_now};
