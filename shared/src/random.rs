//! Counter-based random numbers: a draw is a function of its key, not of how many draws came before.
//!
//! A key is a path such as seed / "train" / step 12 / lane 3 / clip 5 / "drop path 7". Look and replay, a resumed run
//! and a repeated step therefore draw the same numbers, and nothing about randomness has to be saved.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// A key under which numbers are drawn. Cheap to copy; deriving a child hashes 32 bytes and the part's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key([u8; 32]);

impl Key {
    /// The root of all draws of a run.
    pub fn root(seed: u64) -> Self {
        Self(*blake3::keyed_hash(&[0; 32], &seed.to_le_bytes()).as_bytes())
    }

    /// The key of one numbered part below this one, e.g. `child("lane", 3)`.
    #[must_use]
    pub fn child(&self, part: &str, number: u64) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(&number.to_le_bytes());
        hasher.update(part.as_bytes());
        Self(*hasher.finalize().as_bytes())
    }

    /// A generator that always starts at the same place for the same key.
    pub fn rng(&self) -> ChaCha8Rng {
        ChaCha8Rng::from_seed(self.0)
    }
}

#[cfg(test)]
mod tests {
    use rand::Rng as _;

    use super::*;

    #[test]
    fn the_same_key_draws_the_same_and_others_differ() {
        let key = Key::root(7).child("lane", 3);
        assert_eq!(key.rng().next_u64(), key.rng().next_u64());
        let others =
            [Key::root(8).child("lane", 3), Key::root(7).child("lane", 4), Key::root(7).child("clip", 3)];
        for other in others {
            assert_ne!(key.rng().next_u64(), other.rng().next_u64());
        }
    }
}
