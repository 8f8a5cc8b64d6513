//! The keys of a rule's counters.

use super::options::EngineOptions;
use crate::model::key::{Owner, Part, counter_key};
use crate::model::{CounterKey, Descriptor, Limit};
use crate::rules::{CountedAs, Matched};

/// The key of a descriptor's counter for a rule's limit, or for its candidate's.
pub(super) fn rule_key(
    options: &EngineOptions,
    owner: Owner,
    limit: &Limit,
    domain: &str,
    descriptor: &Descriptor,
    matched: &Matched<'_>,
) -> CounterKey {
    let parts = descriptor
        .entries
        .iter()
        .enumerate()
        .map(|(level, entry)| match matched.values.get(level) {
            Some(CountedAs::Shared(name)) => Part::Shared(&entry.key, name),
            Some(CountedAs::Address(address)) => Part::Address(&entry.key, *address),
            Some(CountedAs::Written(text)) => Part::Own(&entry.key, text),
            Some(CountedAs::Own) | None => Part::Own(&entry.key, &entry.value),
        });
    counter_key(&options.key_prefix, owner, limit, domain, parts)
}
