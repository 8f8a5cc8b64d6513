//! Inputs: texts that are meant to hurt, messages made of them, and ways to break encoded messages.

use proptest::prelude::*;
use sluicegate::proto::envoy::extensions::common::ratelimit::v3 as common;
use sluicegate::proto::envoy::service::ratelimit::v3 as wire;

/// Separators, escapes, controls, bytes that are no UTF-8, words of the rules; sometimes anything.
pub fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(&b"\0"[..]),
        Just(&b"\n"[..]),
        Just(&b"\r\n2026-01-01T00:00:00Z ERROR forged"[..]),
        Just(&b"_"[..]),
        Just(&b"|"[..]),
        Just(&b"="[..]),
        Just(&b"{"[..]),
        Just(&b"}"[..]),
        Just(&b":"[..]),
        Just(&b"%"[..]),
        Just(&b"*"[..]),
        Just(&b"\\"[..]),
        Just(&b"\\x5C"[..]),
        Just(&b"\\xFF"[..]),
        Just(&b"xFF"[..]),
        Just(&b"\xFF"[..]),
        Just(&b"\xC3"[..]),
        Just("é\u{2028}".as_bytes()),
        Just(&b"a"[..]),
        Just(&b"user"[..]),
        Just(&b"tenant"[..]),
    ];
    prop_oneof![
        8 => prop::collection::vec(piece, 0..5).prop_map(|pieces| pieces.concat()),
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ]
}

fn entry() -> impl Strategy<Value = common::rate_limit_descriptor::Entry> {
    let key = prop_oneof![2 => Just(b"user".to_vec()), 1 => Just(b"tenant".to_vec()), 1 => bytes()];
    (key, bytes()).prop_map(|(key, value)| common::rate_limit_descriptor::Entry { key, value })
}

fn descriptor() -> impl Strategy<Value = common::RateLimitDescriptor> {
    let limit = (any::<u32>(), -1..10_i32, prop::option::of(any::<u32>()));
    let limit = prop::option::weighted(0.3, limit);
    let hits = prop::option::of(any::<u64>());
    (prop::collection::vec(entry(), 0..4), limit, hits, any::<bool>()).prop_map(
        |(entries, limit, hits_addend, negative)| {
            let limit = limit.map(|(requests_per_unit, unit, unit_multiplier)| {
                common::rate_limit_descriptor::RateLimitOverride {
                    requests_per_unit,
                    unit,
                    unit_multiplier,
                }
            });
            common::RateLimitDescriptor {
                entries,
                limit,
                hits_addend,
                is_negative_hits: negative,
            }
        },
    )
}

/// A request, most of them answerable.
pub fn request() -> impl Strategy<Value = wire::RateLimitRequest> {
    let domain = prop_oneof![4 => Just("d".to_owned()), 1 => ".{0,5}"];
    (domain, prop::collection::vec(descriptor(), 0..5), any::<u32>()).prop_map(|(domain, descriptors, hits_addend)| {
        wire::RateLimitRequest {
            domain,
            descriptors,
            hits_addend,
        }
    })
}

/// Bytes with some of them changed, taken out, put in or cut off.
pub fn broken(good: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<prop::sample::Index>(), any::<u8>(), 0..5_u8);
    (good, prop::collection::vec(change, 0..6)).prop_map(|(mut bytes, changes)| {
        for (at, byte, how) in changes {
            let at = at.index(bytes.len() + 1);
            match how {
                0 => bytes.truncate(at.max(bytes.len() / 2)),
                1 => bytes.insert(at, byte),
                _ if at == bytes.len() => {}
                2 => drop(bytes.remove(at)),
                3 => bytes[at] ^= 1 << (byte % 8),
                _ => bytes[at] = byte,
            }
        }
        bytes
    })
}
