//! Random numbers as plans draw them.

use rand::Rng;

/// Uniform in [0, 1).
pub(super) fn unit(rng: &mut impl Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// Uniform in [-bound, bound).
pub(super) fn around_zero(rng: &mut impl Rng, bound: f64) -> f64 {
    (2.0 * unit(rng) - 1.0) * bound
}

/// Uniform among 0 to `count` - 1; 0 where there is nothing to choose from.
pub(super) fn below(rng: &mut impl Rng, count: usize) -> usize {
    ((u128::from(rng.next_u64()) * count as u128) >> 64) as usize
}

/// True with this probability.
pub(super) fn chance(rng: &mut impl Rng, probability: f64) -> bool {
    unit(rng) < probability
}

#[cfg(test)]
mod tests {
    use longtake_shared::random::Key;

    use super::*;

    #[test]
    fn draws_stay_within_their_bounds_and_reach_both_ends() {
        let mut rng = Key::root(1).rng();
        let mut counts = [0; 3];
        for _ in 0..3000 {
            counts[below(&mut rng, 3)] += 1;
            assert!(around_zero(&mut rng, 2.0).abs() <= 2.0);
            assert!(chance(&mut rng, 1.0) && !chance(&mut rng, 0.0));
        }
        assert!(counts.iter().all(|count| (900..1100).contains(count)), "{counts:?}");
        assert_eq!(below(&mut rng, 0), 0);
    }
}
