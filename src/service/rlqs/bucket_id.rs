//! Bucket ids as they stand on the wire: a map, whose entries come in any order.

use ahash::RandomState;
use prost::Message;
use smallvec::SmallVec;

use crate::model::Entry;

/// Most bytes of an id.
pub const MAX_BYTES: usize = 16 << 10;
/// Most entries of an id.
pub const MAX_ENTRIES: usize = 16;

/// The tag of an entry: field 1, length-delimited.
const ENTRY: u8 = 0x0a;

/// The entries of an id as they stand in it, one after the other; `None` if it is no bucket's, or too large.
pub fn split(id: &[u8]) -> Option<SmallVec<[&[u8]; 4]>> {
    if id.is_empty() || id.len() > MAX_BYTES {
        return None;
    }
    let mut entries = SmallVec::new();
    let mut rest = id;
    while let Some((&ENTRY, tail)) = rest.split_first() {
        if entries.len() == MAX_ENTRIES {
            return None;
        }
        let mut tail = tail;
        let length = usize::try_from(prost::encoding::decode_varint(&mut tail).ok()?).ok()?;
        let (entry, after) = tail.split_at_checked(length)?;
        entries.push(entry);
        rest = after;
    }
    rest.is_empty().then_some(entries)
}

/// A number that does not depend on the order of the entries.
pub fn hash(entries: &[&[u8]], hasher: &RandomState) -> u64 {
    let all = entries.iter().map(|entry| hasher.hash_one(entry));
    all.fold(0, u64::wrapping_add)
}

/// Whether an id has these entries, in any order.
pub fn is_same(id: &[u8], entries: &[&[u8]]) -> bool {
    split(id).is_some_and(|own| own.len() == entries.len() && own.iter().all(|entry| entries.contains(entry)))
}

/// An entry, as the message of a map's entry.
#[derive(Clone, PartialEq, Eq, Message)]
struct MapEntry {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

/// The keys and values of an id's entries, sorted; `None` if they are no text, or one is empty.
pub fn read(entries: &[&[u8]]) -> Option<Vec<Entry>> {
    let read = |entry: &&[u8]| {
        let MapEntry { key, value } = MapEntry::decode(*entry).ok()?;
        (!key.is_empty() && !value.is_empty()).then_some(Entry { key, value })
    };
    let mut bucket: Vec<Entry> = entries.iter().map(read).collect::<Option<_>>()?;
    bucket.sort_by(|a, b| a.key.cmp(&b.key));
    // The last one of a key counts, as in every map on the wire.
    bucket.dedup_by(|later, kept| {
        let is_same = later.key == kept.key;
        if is_same {
            std::mem::swap(later, kept);
        }
        is_same
    });
    (!bucket.is_empty()).then_some(bucket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::envoy::service::rate_limit_quota::v3::BucketId;

    fn id(entries: &[(&str, &str)]) -> Vec<u8> {
        let one = |(key, value): &(&str, &str)| {
            let bucket = std::iter::once(((*key).to_owned(), (*value).to_owned())).collect();
            BucketId { bucket }.encode_to_vec()
        };
        entries.iter().flat_map(one).collect()
    }

    #[test]
    fn the_order_of_entries_makes_no_difference() {
        let hasher = RandomState::new();
        let (one, other) = (id(&[("a", "1"), ("b", "2")]), id(&[("b", "2"), ("a", "1")]));
        assert_ne!(one, other);
        let entries = split(&one).unwrap();
        assert_eq!(hash(&entries, &hasher), hash(&split(&other).unwrap(), &hasher));
        assert!(is_same(&other, &entries));
        assert!(!is_same(&id(&[("a", "2"), ("b", "1")]), &entries));
        assert!(!is_same(&id(&[("a", "1")]), &entries));
        let twice = id(&[("b", "3"), ("a", "1"), ("b", "2")]);
        assert_eq!(read(&entries), read(&split(&twice).unwrap()), "the last one counts");
        assert_eq!(read(&entries), read(&split(&other).unwrap()));
    }

    #[test]
    fn what_is_no_bucket_is_refused() {
        for wrong in [
            &b""[..],
            b"\x0a",
            b"\x0a\x05ab",
            b"\x12\x00",
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        ] {
            assert_eq!(split(wrong), None, "{wrong:?}");
        }
        assert_eq!(split(&id(&[("a", "1"); MAX_ENTRIES + 1])), None);
        assert_eq!(split(&id(&[("a", &"x".repeat(MAX_BYTES))])), None);
        assert_eq!(read(&split(&id(&[("a", "")])).unwrap()), None);
        assert_eq!(read(&[b"\x0a\x01\xff\x12\x01a"]), None, "not UTF-8");
    }
}
