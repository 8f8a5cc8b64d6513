//! Which node serves which slot.

use fred::types::Value;
use fred::util::redis_keyslot;

use crate::config::settings::redis::HostPort;
use crate::model::CounterKey;
use crate::store::StoreError;

/// Hash slots of any cluster.
pub(super) const SLOTS: usize = 16_384;
/// Nodes that are believed to exist at most; far above what Redis Cluster supports.
const MAX_NODES: usize = 4096;
/// Keys that are tried to find two of a node.
const MAX_TRIES: usize = 4096;
/// Stands for no node in [`SlotMap::owners`].
const NOBODY: u16 = u16::MAX;

/// The masters and their slots, as one node told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SlotMap {
    /// The masters.
    pub nodes: Vec<HostPort>,
    /// Position in `nodes`, by slot.
    owners: Box<[u16]>,
}

impl SlotMap {
    /// Nobody serves anything.
    pub fn empty() -> Self {
        Self {
            nodes: Vec::new(),
            owners: vec![NOBODY; SLOTS].into(),
        }
    }

    /// Who serves a slot.
    pub fn owner(&self, slot: u16) -> Option<&HostPort> {
        let owner = *self.owners.get(usize::from(slot))?;
        self.nodes.get(usize::from(owner))
    }

    /// The number of the node that serves a slot; [`NOBODY`] if none does.
    pub fn owner_number(&self, slot: u16) -> u16 {
        self.owners.get(usize::from(slot)).copied().unwrap_or(NOBODY)
    }

    /// Two keys in different slots of a node, if it has that many and some are found.
    pub fn keys_of_two_slots(&self, node: &HostPort, prefix: &str) -> Option<[String; 2]> {
        let keys = (0..MAX_TRIES).map(|n| format!("{prefix}probe{{{n}}}"));
        let mut own = keys.filter(|key| self.owner(redis_keyslot(key.as_bytes())) == Some(node));
        let first = own.next()?;
        let other = own.find(|key| redis_keyslot(key.as_bytes()) != redis_keyslot(first.as_bytes()))?;
        Some([first, other])
    }

    /// Reads the answer to `CLUSTER SLOTS` from the node `asked`, to which addresses without a host refer.
    pub fn parse(reply: &Value, asked: &HostPort) -> Result<Self, StoreError> {
        let wrong = || StoreError::Protocol("the answer to CLUSTER SLOTS makes no sense".to_owned());
        let mut map = Self::empty();
        for range in array(reply).ok_or_else(wrong)? {
            let [start, end, master, ..] = array(range).ok_or_else(wrong)? else {
                return Err(wrong());
            };
            let [host, port, ..] = array(master).ok_or_else(wrong)? else {
                return Err(wrong());
            };
            let node = HostPort {
                host: host_or(host, asked),
                port: number(port).and_then(|p| u16::try_from(p).ok()).ok_or_else(wrong)?,
            };
            let start = number(start).ok_or_else(wrong)?;
            let end = number(end).filter(|end| *end < SLOTS).ok_or_else(wrong)?;
            let owner = map.position(node).ok_or_else(wrong)?;
            map.owners.get_mut(start..=end).ok_or_else(wrong)?.fill(owner);
        }
        Ok(map)
    }

    fn position(&mut self, node: HostPort) -> Option<u16> {
        let known = self.nodes.iter().position(|other| *other == node);
        let position = known.unwrap_or_else(|| {
            self.nodes.push(node);
            self.nodes.len() - 1
        });
        u16::try_from(position).ok().filter(|_| position < MAX_NODES)
    }
}

/// The slot of a counter.
pub fn slot_of(key: &CounterKey) -> u16 {
    redis_keyslot(key.as_str().as_bytes())
}

/// Where a redirection leads: the rest of `MOVED 3999 127.0.0.1:6381` or `ASK 3999 127.0.0.1:6381`, told by `asked`.
pub(super) fn redirection(details: &str, asked: &HostPort) -> Option<HostPort> {
    let (host, port) = details.split_whitespace().nth(2)?.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Some(HostPort {
        host: if is_unknown(host) { &asked.host } else { host }.to_owned(),
        port: port.parse().ok()?,
    })
}

fn array(value: &Value) -> Option<&[Value]> {
    match value {
        Value::Array(values) => Some(values),
        _ => None,
    }
}

fn number(value: &Value) -> Option<usize> {
    usize::try_from(value.as_i64()?).ok()
}

/// Nodes that do not know their own address leave it out.
fn host_or(host: &Value, asked: &HostPort) -> String {
    match host.as_str() {
        Some(host) if !is_unknown(&host) => host.into_owned(),
        _ => asked.host.clone(),
    }
}

fn is_unknown(host: &str) -> bool {
    host.is_empty() || host == "?"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(host: &str, port: u16) -> HostPort {
        HostPort {
            host: host.to_owned(),
            port,
        }
    }

    fn range(start: i64, end: i64, host: Value, port: i64) -> Value {
        let master = Value::Array(vec![host, Value::Integer(port), Value::from("id")]);
        Value::Array(vec![Value::Integer(start), Value::Integer(end), master])
    }

    #[test]
    fn slots_belong_to_masters_and_gaps_to_nobody() {
        let reply = Value::Array(vec![
            range(0, 99, Value::from("10.0.0.1"), 1),
            range(200, 16_383, Value::from(""), 2),
            range(150, 150, Value::Null, 1),
        ]);
        let map = SlotMap::parse(&reply, &node("asked", 9)).unwrap();
        assert_eq!(map.owner(0), Some(&node("10.0.0.1", 1)));
        assert_eq!(map.owner(99), Some(&node("10.0.0.1", 1)));
        assert_eq!(map.owner(100), None);
        assert_eq!(map.owner(150), Some(&node("asked", 1)));
        assert_eq!(map.owner(16_383), Some(&node("asked", 2)));
        assert_eq!(map.owner(u16::MAX), None);
        assert_eq!(map.nodes.len(), 3);
    }

    #[test]
    fn nonsense_is_refused() {
        let asked = node("asked", 9);
        for reply in [
            Value::Null,
            Value::Array(vec![Value::Null]),
            Value::Array(vec![Value::Array(vec![])]),
            Value::Array(vec![range(0, 16_384, Value::Null, 1)]),
            Value::Array(vec![range(5, 4, Value::Null, 70_000)]),
            Value::Array(vec![range(-1, 4, Value::Null, 1)]),
        ] {
            assert_eq!(SlotMap::parse(&reply, &asked).unwrap_err().kind(), "protocol");
        }
    }

    #[test]
    fn redirections_lead_somewhere_or_nowhere() {
        let asked = node("asked", 9);
        for (details, found) in [
            ("MOVED 3999 127.0.0.1:6381", Some(node("127.0.0.1", 6381))),
            ("ASK 3999 fe80::1:6381", Some(node("fe80::1", 6381))),
            ("MOVED 3999 :6381", Some(node("asked", 6381))),
            ("MOVED 3999 ?:6381", Some(node("asked", 6381))),
            ("MOVED 3999", None),
            ("MOVED 3999 host:port", None),
        ] {
            assert_eq!(redirection(details, &asked), found, "{details}");
        }
    }
}
