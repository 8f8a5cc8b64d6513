//! A keyed hash for maps whose keys come from requests. With a fixed seed a map's order is repeatable, for simulations.

use std::hash::BuildHasher;

use siphasher::sip::SipHasher13;

/// SipHash-1-3 with a secret: a client that chooses descriptor values cannot aim at a collision.
#[derive(Clone, Copy)]
pub(super) struct KeyedHasher(u64, u64);

impl KeyedHasher {
    /// Derives the secret from `seed`; `None` = a random secret.
    pub(super) fn new(seed: Option<u64>) -> Self {
        seed.map_or_else(|| Self(rand::random(), rand::random()), |seed| Self(seed, !seed))
    }
}

impl BuildHasher for KeyedHasher {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0, self.1)
    }
}
