//! What a caller asks about: a domain and descriptors, each a path of key/value entries.

use super::HoldId;
use super::hold::HOLD_ENTRY;
use super::limit::Window;

/// One question: may this request pass?
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// The namespace of the rules; not empty.
    pub domain: String,
    /// At least one.
    pub descriptors: Vec<Descriptor>,
    /// Hits of each descriptor that brings none of its own; 0 means 1.
    pub hits_addend: u32,
    /// The caller makes a release for each of its requests, also for those that were denied: an Envoy does.
    pub releases_all: bool,
}

/// A path of entries that is limited as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// In the order of the rules' tree.
    pub entries: Vec<Entry>,
    /// A limit that the request brings itself; the tree is not asked.
    pub limit: Option<LimitOverride>,
    /// Hits of this descriptor: `None` = the request's, `Some(0)` = a peek.
    pub hits_addend: Option<u64>,
    /// The hits are given back instead of taken.
    pub is_negative_hits: bool,
    /// Whether the hits settle a hold.
    pub settles: Settles,
}

/// What a descriptor's hits have to do with holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Settles {
    /// Nothing: they are asked for.
    #[default]
    Nothing,
    /// They have happened, and settle the hold of this id.
    Hold(HoldId),
    /// They have happened, and no hold of them is known.
    NoHold,
}

impl Settles {
    /// Takes the entries that name a hold ([`HOLD_ENTRY`]) out of a descriptor; the first one counts.
    #[must_use]
    pub fn take(entries: &mut Vec<Entry>) -> Self {
        let mut settles = Self::Nothing;
        entries.retain(|entry| {
            let is_hold = entry.key == HOLD_ENTRY;
            if is_hold && settles == Self::Nothing {
                settles = HoldId::parse(&entry.value).map_or(Self::NoHold, Self::Hold);
            }
            !is_hold
        });
        settles
    }
}

/// A key and its value; both may be any string, the value may be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Entry {
    /// For instance `remote_address`.
    pub key: String,
    /// For instance `10.0.0.1`.
    pub value: String,
}

/// The limit inside a descriptor (`RateLimitDescriptor.limit`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitOverride {
    /// Hits in a window; 0 bans.
    pub requests_per_unit: u32,
    /// The window.
    pub window: Window,
}
