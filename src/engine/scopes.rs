//! The scopes of a request's quotas.

use smallvec::SmallVec;

use crate::model::Entry;

/// Number of a descriptor's first entries that identify its scope.
const SCOPE_ENTRIES: usize = 2;

/// The scopes of a request's quotas, by their first entries; empty without quotas.
#[derive(Default)]
pub(super) struct QuotaScopes(Vec<SmallVec<[Entry; SCOPE_ENTRIES]>>);

impl QuotaScopes {
    /// The scope that a descriptor's quota belongs to: descriptors with the same first two entries (backend and model, in
    /// Envoy AI Gateway's), or the beginning of one, share one. So a tenant's quota of a model and the model's own quota
    /// share a scope, and another model's quotas have a scope of their own.
    pub fn scope_of(&mut self, entries: &[Entry]) -> u8 {
        let entries = &entries[..entries.len().min(SCOPE_ENTRIES)];
        let shares = |known: &SmallVec<[Entry; SCOPE_ENTRIES]>| known.iter().zip(entries).all(|(a, b)| a == b);
        let index = match self.0.iter().position(shares) {
            Some(index) => index,
            None => {
                self.0.push(SmallVec::new());
                self.0.len() - 1
            }
        };
        if let Some(scope) = self.0.get_mut(index)
            && scope.len() < entries.len()
        {
            *scope = entries.iter().cloned().collect();
        }
        // Requests have up to 256 descriptors.
        u8::try_from(index).unwrap_or(u8::MAX)
    }

    /// Whether there are several scopes, and all begin with these entries.
    pub fn several_begin_with(&self, entries: &[Entry]) -> bool {
        self.0.len() > 1 && self.0.iter().all(|scope| scope.starts_with(entries))
    }
}
