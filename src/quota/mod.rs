//! Quotas that Envoys enforce themselves (RLQS): a limit is divided into leases, strictly. Pure: no clock, no store, no wire.
//!
//! A lease is a number of requests that one Envoy may admit until its ttl ends. It is a **hold** on the rule's counter
//! ([`crate::algorithms::held`]): what is used and what is leased stay within the limit together, whoever asks. What becomes
//! of a hold:
//!
//! - A report says how many requests the Envoy has admitted: so many are settled, and count from now on as any hits do; the
//!   rest stays held.
//! - A lease that has ended is settled in full. What the next report proves unused is returned to the slice that it was
//!   settled in.
//! - A hold that nobody settles, because the server or its stream is gone, lasts a whole window longer than its lease
//!   ([`terms::leased`]): so what was admitted with it has left every window by then.
//!
//! | file | what is in it |
//! |---|---|
//! | [`terms`] | how long leases and their holds last |
//! | [`size`] | how many requests a lease is for |
//! | [`account`] | one bucket on one stream: what is leased, used, settled, returned |

pub mod account;
pub mod size;
pub mod terms;
