//! Arithmetic that the compiler turns into vector instructions.

/// Whether this processor has AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
pub(super) static AVX2: std::sync::LazyLock<bool> =
    std::sync::LazyLock::new(|| is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"));

/// Defines a function that is compiled twice, once for AVX2 and FMA, and chooses where it runs. What its body calls must
/// be `#[inline(always)]`, or it stays scalar.
macro_rules! vectorised {
    ($(#[$meta:meta])* fn $name:ident($($argument:ident: $kind:ty),* $(,)?) $(-> $result:ty)? $body:block) => {
        $(#[$meta])*
        fn $name($($argument: $kind),*) $(-> $result)? {
            #[inline(always)]
            fn scalar($($argument: $kind),*) $(-> $result)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                fn vector($($argument: $kind),*) $(-> $result)? {
                    scalar($($argument),*)
                }

                if *$crate::model::ops::simd::AVX2 {
                    // SAFETY: the processor was asked for both features.
                    #[allow(unsafe_code, reason = "only code compiled for AVX2 needs AVX2, and it was asked for")]
                    return unsafe { vector($($argument),*) };
                }
            }
            scalar($($argument),*)
        }
    };
}

pub(super) use vectorised;

/// Partial results side by side; a sum runs over them in a fixed order.
const LANES: usize = 16;

/// Folds values in lanes: `step` on each, then `join` over the lanes in order.
#[inline(always)]
pub(super) fn fold(
    values: &[f32],
    start: f32,
    step: impl Fn(f32, f32) -> f32,
    join: impl Fn(f32, f32) -> f32,
) -> f32 {
    let mut lanes = [start; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = step(*lane, value);
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(rest) {
        *lane = step(*lane, value);
    }
    lanes.into_iter().fold(start, join)
}

/// Folds pairs of values in lanes, then adds the lanes in order.
#[inline(always)]
pub(super) fn sum_pairs(a: &[f32], b: &[f32], step: impl Fn(f32, f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (left, right) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let (left_rest, right_rest) = (left.remainder(), right.remainder());
    for (left, right) in left.zip(right) {
        for ((lane, &left), &right) in lanes.iter_mut().zip(left).zip(right) {
            *lane = step(*lane, left, right);
        }
    }
    for ((lane, &left), &right) in lanes.iter_mut().zip(left_rest).zip(right_rest) {
        *lane = step(*lane, left, right);
    }
    lanes.into_iter().sum()
}

/// The sum of values, lane by lane.
#[inline(always)]
pub(super) fn sum(values: &[f32]) -> f32 {
    fold(values, 0.0, |sum, value| sum + value, |a, b| a + b)
}

/// `e^x` to 2 units in the last place for x from -87 to 88, clamped beyond: x = n ln 2 + r, and a Taylor polynomial of
/// degree 7 on |r| <= ln 2 / 2.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    /// Adding 1.5 * 2^23 leaves the nearest integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    /// ln 2 in two parts, the first exact in few bits.
    const LN_2: (f32, f32) = (0.693_359_4, -2.121_944_4e-4);
    let x = x.clamp(-87.0, 88.0);
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN_2.1, n.mul_add(-LN_2.0, x));
    let polynomial = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0]
        .into_iter()
        .fold(1.0 / 5040.0, |sum: f32, coefficient| sum.mul_add(r, coefficient));
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()));
    polynomial * power
}

/// The error function to 4e-7: the rational approximation on |x| <= 4 that Eigen and XLA use, beyond which f32 rounds
/// to ±1.
#[inline(always)]
pub(super) fn erf(x: f32) -> f32 {
    const ODD: [f32; 7] = [
        -2.726_142_3e-10,
        2.770_681_4e-8,
        -2.101_024e-6,
        -5.692_506_5e-5,
        -7.349_906_4e-4,
        -2.954_6e-3,
        -1.609_603_4e-2,
    ];
    const EVEN: [f32; 5] =
        [-1.456_607_2e-5, -2.133_740_6e-4, -1.682_827e-3, -7.373_329_2e-3, -1.426_473_9e-2];
    let x = x.clamp(-4.0, 4.0);
    let square = x * x;
    let odd = ODD[1..].iter().fold(ODD[0], |sum, &coefficient| sum.mul_add(square, coefficient));
    let even = EVEN[1..].iter().fold(EVEN[0], |sum, &coefficient| sum.mul_add(square, coefficient));
    x * odd / even
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_cmp, reason = "sums of small integers are exact")]

    use super::*;

    vectorised! {
        fn run_exp(x: f32) -> f32 {
            exp(x)
        }
    }

    vectorised! {
        fn run_erf(x: f32) -> f32 {
            erf(x)
        }
    }

    #[test]
    fn exp_is_exact_to_f32_rounding() {
        for step in -8_700..8_800 {
            let x = step as f32 / 100.0;
            let (ours, exact) = (f64::from(run_exp(x)), f64::from(x).exp());
            assert!((ours / exact - 1.0).abs() < 3e-7, "exp({x}) = {ours}, not {exact}");
        }
    }

    #[test]
    fn erf_meets_known_values() {
        // Abramowitz and Stegun, table 7.1.
        let table = [(0.0, 0.0), (0.1, 0.112_462_916), (0.5, 0.520_499_9), (1.0, 0.842_700_8)];
        let table = table.into_iter().chain([(1.5, 0.966_105_16), (2.0, 0.995_322_3), (3.0, 0.999_977_9)]);
        for (x, exact) in table.chain([(6.0, 1.0)]) {
            for sign in [-1.0, 1.0] {
                let ours = run_erf(sign * x);
                assert!((ours - sign * exact).abs() < 4e-7, "erf({x}) = {ours}, not {exact}");
            }
        }
    }

    #[test]
    fn folds_cover_every_value() {
        for length in [0, 1, 15, 16, 17, 100] {
            let values: Vec<f32> = (1..=length).map(|n| n as f32).collect();
            assert_eq!(sum(&values), (length * (length + 1) / 2) as f32);
            assert_eq!(fold(&values, 0.0, f32::max, f32::max), length as f32);
            assert_eq!(sum_pairs(&values, &values, |s, a, b| s + a - b), 0.0);
        }
    }
}
