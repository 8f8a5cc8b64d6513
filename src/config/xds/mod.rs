//! Rules from a control plane: an ADS client (xDS, state of the world) for `RateLimitConfig` resources.
//!
//! Each response replaces all rules or, if anything in it is wrong, none (and is refused with the same texts as a
//! file would be). The last good rules stay in force while the control plane is away.

mod backoff;
mod client;
mod connect;
mod resource;
mod stream;
mod update;
mod watch;

pub use client::XdsClient;
pub use update::{TYPE_URL, Update};
pub use watch::{XdsError, XdsWatch, watch_xds};
