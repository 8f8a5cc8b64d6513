//! Counter keys as 128 keyed bits.

use siphasher::sip128::SipHasher13;

use crate::model::CounterKey;

/// A counter's identity inside this process.
///
/// SipHash-1-3 with 128 bits of output and a random key for each process: a client that chooses descriptor
/// values cannot aim at a collision, and among a million counters an accidental one has a chance of about 1 in 10^27, so the key's
/// text is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyHash {
    /// Places the counter in its shard's table.
    pub table: u64,
    /// Selects the shard; unpredictable, so eviction also takes random positions from it.
    pub shard: u64,
}

/// Hashes keys with one secret.
#[derive(Clone)]
pub struct KeyHasher(SipHasher13);

impl KeyHasher {
    /// Hashes with this secret.
    #[must_use]
    pub fn new(secret: &[u8; 16]) -> Self {
        Self(SipHasher13::new_with_key(secret))
    }

    /// The key's identity.
    #[must_use]
    pub fn hash(&self, key: &CounterKey) -> KeyHash {
        let hash = self.0.hash(key.as_str().as_bytes());
        KeyHash {
            table: hash.h1,
            shard: hash.h2,
        }
    }
}

impl std::fmt::Debug for KeyHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the secret, as it must not be logged: with it, keys could be aimed at a collision.
        f.write_str("KeyHasher")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_secret_hashes_otherwise() {
        let key = CounterKey::from_raw("sw:60/32:{shop|user=anna}");
        let (one, two) = (KeyHasher::new(&[1; 16]), KeyHasher::new(&[2; 16]));
        assert_eq!(one.hash(&key), one.hash(&key));
        assert_ne!(one.hash(&key), two.hash(&key));
        assert!(!format!("{one:?}").contains("key"));
    }
}
