//! Which rule applies to a descriptor's entries.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::net::IpAddr;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::model::Entry;
use crate::model::key::PartKind;

use super::pattern::NodeId;
use super::tree::{Level, Node, Values};
use super::{Domain, Rule};

/// The rules that apply.
#[derive(Debug, Clone)]
pub struct Matched<'r> {
    /// At least one; several where a node has several limits.
    pub rules: &'r [Arc<Rule>],
    /// For each entry, in order: as what its value is counted.
    pub values: SmallVec<[CountedAs<'r>; 4]>,
}

/// As what a value is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CountedAs<'r> {
    /// For itself.
    Own,
    /// On its own counter, under the spelling of the address that the rules have.
    Written(&'r str),
    /// Under the name of the wildcard or set whose values share one counter (`share_threshold`).
    Shared(&'r str),
    /// As this address, however it is written.
    Address(IpAddr),
}

/// What of a level a value has matched, in the order in which it is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// The value itself.
    Value,
    /// A list.
    List,
    /// A network.
    Network,
    /// A wildcard.
    Pattern,
    /// A regular expression.
    Regex,
    /// The key alone.
    Key,
}

impl Domain {
    /// The rules that stand on the node of the last entry.
    ///
    /// At each level: the exact key and value first, then a list that has the value, the network with the longest prefix, the
    /// most specific wildcard, the first regular expression that matches, the key alone. What is taken is taken: an exact
    /// node that leads nowhere is not left again for a sibling. Where a key has networks, addresses are looked for among values
    /// and lists in their usual form, too. The cost is the number of entries, whatever the number of rules, times a look for each
    /// distinct prefix length of a level's networks and for each length of its wildcards' fixed parts (see [`super::pattern`]), and
    /// one pass over the value for its expressions (see [`super::value_set`]); nothing is allocated up to four entries.
    #[must_use]
    pub fn find<'r>(&'r self, entries: &[Entry]) -> Option<Matched<'r>> {
        self.find_probed(entries, &mut || {})
    }

    /// [`Self::find`], calling `probe` once for each look into a hash map: the cost as a number that tests can hold on to.
    pub fn find_probed<'r>(&'r self, entries: &[Entry], probe: &mut impl FnMut()) -> Option<Matched<'r>> {
        let mut level = &self.root;
        let mut last = None;
        let mut values = SmallVec::new();
        for entry in entries {
            let (node, counted) = level.step(entry, probe)?;
            values.push(node.shared.as_deref().map_or(counted, CountedAs::Shared));
            level = &node.children;
            last = Some(node);
        }
        let rules = &*last?.rules;
        (!rules.is_empty()).then_some(Matched { rules, values })
    }
}

impl Level {
    fn step(&self, entry: &Entry, probe: &mut impl FnMut()) -> Option<(&Node, CountedAs<'_>)> {
        probe();
        let values = self.keys.get(entry.key.as_str())?;
        let (id, _, counted) = values.find(&entry.value, probe)?;
        Some((values.nodes.get(id as usize)?, counted))
    }
}

impl Values {
    /// The node that a value leads to, how, and as what it is counted there.
    pub(super) fn find(&self, value: &str, probe: &mut impl FnMut()) -> Option<(NodeId, How, CountedAs<'_>)> {
        if let Some((id, how, _)) = self.named(value, probe) {
            return Some((id, how, CountedAs::Own));
        }
        if let Some(address) = self.networks.address(value) {
            let usual = AddressText::of(address);
            if usual.as_str() != value
                && let Some((id, how, text)) = self.named(usual.as_str(), probe)
            {
                return Some((id, how, CountedAs::Written(text)));
            }
            if let Some(id) = self.networks.find(address, probe) {
                return Some((id, How::Network, CountedAs::Address(address)));
            }
        }
        let pattern = self.patterns.find(value, probe).map(|id| (id, How::Pattern));
        let regex = |probe| Some((self.regexes.find(value, probe)?, How::Regex));
        let found = pattern.or_else(|| regex(probe)).or_else(|| Some((self.any?, How::Key)));
        found.map(|(id, how)| (id, how, CountedAs::Own))
    }

    /// The node that has a text itself, or in a list.
    fn named(&self, text: &str, probe: &mut impl FnMut()) -> Option<(NodeId, How, &str)> {
        for (texts, how) in [(&self.exact, How::Value), (&self.listed, How::List)] {
            if !texts.is_empty() {
                probe();
                if let Some((text, id)) = texts.get_key_value(text) {
                    return Some((*id, how, text));
                }
            }
        }
        None
    }
}

/// An address in its usual form.
struct AddressText {
    bytes: [u8; Self::MAX],
    length: usize,
}

impl AddressText {
    /// `ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255` is the longest.
    const MAX: usize = 45;

    fn of(address: IpAddr) -> Self {
        let mut text = Self {
            bytes: [0; Self::MAX],
            length: 0,
        };
        // It has room for any.
        let _ = write!(text, "{address}");
        text
    }

    fn as_str(&self) -> &str {
        let written = self.bytes.get(..self.length);
        written
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
            .unwrap_or_default()
    }
}

impl Write for AddressText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        let room = self.bytes.get_mut(self.length..end).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

impl Matched<'_> {
    /// The value that a descriptor ends with, as it is counted: of an address, its usual form.
    #[must_use]
    pub fn value_of_last<'e>(&'e self, entries: &'e [Entry]) -> Option<Cow<'e, str>> {
        let own = entries.last()?.value.as_str();
        Some(match self.values.get(entries.len() - 1) {
            Some(CountedAs::Shared(text) | CountedAs::Written(text)) => (*text).into(),
            Some(CountedAs::Address(address)) => address.to_string().into(),
            Some(CountedAs::Own) | None => own.into(),
        })
    }
}

impl Domain {
    /// The rules that count under these keys and values.
    #[must_use]
    pub fn find_named(&self, levels: &[(String, String, PartKind)]) -> &[Arc<Rule>] {
        let (mut level, mut rules) = (&self.root, &[][..]);
        for (key, value, kind) in levels {
            let Some(values) = level.keys.get(key.as_str()) else {
                return &[];
            };
            let set = || values.sets.get(value.as_str()).copied();
            let network = || values.networks.find(values.networks.address(value)?, &mut || {});
            let found = || values.find(value, &mut || {}).map(|(id, ..)| id);
            let id = match kind {
                PartKind::Own => found(),
                PartKind::Shared => set().or_else(found),
                PartKind::Address => network(),
            };
            let Some(node) = id.and_then(|id| values.nodes.get(id as usize)) else {
                return &[];
            };
            (level, rules) = (&node.children, &node.rules);
        }
        rules
    }
}
