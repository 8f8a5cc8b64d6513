//! Limits → the descriptors that ask for them, none in another's way.
//!
//! limitador looks for a limit's entries anywhere in the first descriptor, so one descriptor is counted by every limit that
//! finds its own. Rules take the one path that fits best. So each limit gets a descriptor with exactly its entries, which limits of
//! other windows share; where the paths of two could be taken for each other, the later one gets a first entry that tells it
//! apart.

use super::condition::WantedValues;
use super::limit::{LimitEntry, LimitadorLimit};
use crate::rules::MAX_LIMITS;

/// The key of the entry that tells a limit apart, as Envoy's action of that name sends it.
pub(super) const GENERIC_KEY: &str = "generic_key";

/// A limit and the whole path of its descriptor.
pub(super) struct PlacedLimit<'l> {
    pub(super) limit: &'l LimitadorLimit,
    pub(super) path: Vec<LimitEntry>,
}

/// Finds a descriptor for each limit of one namespace.
pub(super) fn place<'l>(limits: &[&'l LimitadorLimit]) -> Vec<PlacedLimit<'l>> {
    let mut placed: Vec<PlacedLimit<'l>> = Vec::with_capacity(limits.len());
    for &limit in limits {
        let beside: Vec<&PlacedLimit<'_>> = placed
            .iter()
            .filter(|known| known.limit.entries == limit.entries)
            .collect();
        if let Some(first) = beside.first()
            && let on_node = beside.iter().filter(|known| known.path == first.path)
            && on_node.clone().count() < MAX_LIMITS
            && on_node.clone().all(|known| known.limit.seconds != limit.seconds)
        {
            let path = first.path.clone();
            placed.push(PlacedLimit { limit, path });
            continue;
        }
        let mut path = limit.entries.clone();
        let mut tag = format!("limit-{}", limit.number);
        while path.is_empty() || placed.iter().any(|known| clash(&known.path, &path)) {
            let first = LimitEntry {
                key: GENERIC_KEY.to_owned(),
                values: WantedValues::Exact(tag.clone()),
                alone: true,
            };
            path = std::iter::once(first).chain(limit.entries.iter().cloned()).collect();
            tag.push('+');
        }
        placed.push(PlacedLimit { limit, path });
    }
    placed
}

/// Whether a descriptor of one path could be led onto the other, or both end on one node.
fn clash(a: &[LimitEntry], b: &[LimitEntry]) -> bool {
    for (a, b) in a.iter().zip(b) {
        if a.key != b.key {
            return false;
        }
        if a != b {
            return overlap(&a.values, &b.values);
        }
    }
    a.len() == b.len()
}

/// Whether some text is among both.
fn overlap(a: &WantedValues, b: &WantedValues) -> bool {
    match (a, b) {
        (WantedValues::Any, _) | (_, WantedValues::Any) => true,
        (WantedValues::Exact(a), WantedValues::Exact(b)) => a == b,
        (WantedValues::Exact(one), WantedValues::OneOf(list))
        | (WantedValues::OneOf(list), WantedValues::Exact(one)) => list.contains(one),
        (WantedValues::OneOf(a), WantedValues::OneOf(b)) => a.iter().any(|text| b.contains(text)),
        (WantedValues::Prefix(prefix), WantedValues::Exact(one))
        | (WantedValues::Exact(one), WantedValues::Prefix(prefix)) => one.starts_with(prefix),
        (WantedValues::Prefix(prefix), WantedValues::OneOf(list))
        | (WantedValues::OneOf(list), WantedValues::Prefix(prefix)) => list.iter().any(|text| text.starts_with(prefix)),
        (WantedValues::Prefix(a), WantedValues::Prefix(b)) => a.starts_with(b) || b.starts_with(a),
    }
}
