//! Whether a measured quantity had settled, and from when.
//!
//! MSER-5 (White, An effective truncation heuristic for bias reduction in simulation output, Simulation
//! 69(6), 1997; White, Cobb and Spratt, A comparison of five steady-state truncation heuristics, WSC 2000):
//! of means over five values, cut off as many at the start as make the standard error of the mean of the
//! rest smallest. Cutting a transient away makes the rest agree better; cutting steady values away only
//! leaves fewer. Where even the last cut that is allowed, the half, is the best, the series has not
//! settled.

use super::stats::Slice;

/// Values in a batch.
const BATCH: usize = 5;
/// Fewest batches that say anything.
const FEWEST: usize = 8;
/// How far two parts of a series may differ, relative to the later, and still be the same: chance alone
/// cuts something off now and then.
const SAME: f64 = 0.2;
/// Answers of 2xx that the mean of a value should rest on.
const ANSWERS_A_VALUE: u64 = 10;

/// Whether a series had settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steadiness {
    /// Steady from this value on.
    From(usize),
    /// Still changing at the end.
    Never,
    /// Too few values to tell.
    Unknown,
}

/// Judges throughput and mean latency of slices of time together: steady where both are, from the later
/// of the two. The number is one of a slice.
pub(super) fn of_slices(slices: &[Slice]) -> Steadiness {
    let n_ok: u64 = slices.iter().map(|slice| slice.ok).sum();
    if n_ok == 0 {
        return Steadiness::Unknown;
    }
    // Few answers in a slice make noise: join slices until each value rests on enough.
    let per_slice = n_ok.div_ceil(slices.len() as u64);
    let joined = usize::try_from(ANSWERS_A_VALUE.div_ceil(per_slice)).unwrap_or(usize::MAX);
    let values = || slices.chunks_exact(joined);
    let throughput: Vec<f64> = values().map(|part| part.iter().map(|slice| slice.ok as f64).sum()).collect();
    let latency: Vec<f64> = values()
        .filter_map(|part| {
            let n: u64 = part.iter().map(|slice| slice.ok).sum();
            (n > 0).then(|| part.iter().map(|slice| slice.latency_s).sum::<f64>() / n as f64)
        })
        .collect();
    match (of(&throughput), of(&latency)) {
        (Steadiness::From(one), Steadiness::From(other)) => Steadiness::From(one.max(other) * joined),
        (Steadiness::Never, _) | (_, Steadiness::Never) => Steadiness::Never,
        _ => Steadiness::Unknown,
    }
}

/// Judges one series.
pub(super) fn of(values: &[f64]) -> Steadiness {
    let means: Vec<f64> = values.chunks_exact(BATCH).map(mean).collect();
    if means.len() < FEWEST {
        return Steadiness::Unknown;
    }
    let last_cut = means.len() / 2;
    let error = |cut: usize| {
        let rest = &means[cut..];
        let mean = mean(rest);
        rest.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (rest.len() * rest.len()) as f64
    };
    let best = (0..=last_cut).min_by(|one, other| error(*one).total_cmp(&error(*other))).unwrap_or_default();
    let differ =
        |earlier: &[f64], later: &[f64]| (mean(earlier) - mean(later)).abs() > SAME * mean(later).abs();
    // A transient that is over leaves a level second half, wherever the cut.
    let (earlier, later) = means[last_cut..].split_at((means.len() - last_cut) / 2);
    if best == last_cut && differ(earlier, later) {
        Steadiness::Never
    } else if best > 0 && differ(&means[..best], &means[best..]) {
        Steadiness::From(best * BATCH)
    } else {
        Steadiness::From(0)
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A series of chance around a mean, by seed.
    fn noise(n: usize, seed: u64) -> Vec<f64> {
        let mut rng = fastrand::Rng::with_seed(seed);
        (0..n).map(|_| 10.0 + rng.f64()).collect()
    }

    proptest! {
        #[test]
        fn noise_around_a_mean_is_steady(n in 40usize..300, seed in any::<u64>()) {
            prop_assert!(matches!(of(&noise(n, seed)), Steadiness::From(_)));
        }

        #[test]
        fn a_transient_is_cut_off_and_no_more_than_half_is(transient in 5usize..40, seed in any::<u64>()) {
            let mut values = noise(100, seed);
            for (n, value) in values.iter_mut().take(transient).enumerate() {
                *value += 50.0 * (1.0 - n as f64 / transient as f64) + 10.0;
            }
            let Steadiness::From(cut) = of(&values) else {
                return Err(TestCaseError::fail("a transient in the first half is not settled"));
            };
            prop_assert!(cut >= transient / BATCH * BATCH && cut <= 50, "{} of {}", cut, transient);
        }

        #[test]
        fn what_grows_to_the_end_is_not_steady(slope in 0.5f64..100.0, seed in any::<u64>()) {
            let values: Vec<f64> =
                noise(100, seed).iter().enumerate().map(|(n, value)| value + slope * n as f64).collect();
            prop_assert_eq!(of(&values), Steadiness::Never);
        }
    }

    #[test]
    fn few_values_say_nothing() {
        assert_eq!(of(&noise(FEWEST * BATCH - 1, 1)), Steadiness::Unknown);
        assert_eq!(of_slices(&[Slice::default(); 100]), Steadiness::Unknown);
        assert_eq!(of_slices(&[]), Steadiness::Unknown);
    }

    #[test]
    fn slices_are_steady_where_rate_and_latency_are() {
        let slice = |ok: u64, latency: f64| Slice { ok, other: 0, latency_s: latency * ok as f64 };
        let steady: Vec<Slice> = (0..100).map(|n| slice(100 + n % 3, 0.010)).collect();
        assert!(matches!(of_slices(&steady), Steadiness::From(_)));
        let slower: Vec<Slice> = (0..100).map(|n| slice(100 + n % 3, 0.001 * n as f64)).collect();
        assert_eq!(of_slices(&slower), Steadiness::Never);
        let starts: Vec<Slice> = (0..100).map(|n| slice(if n < 20 { 10 } else { 100 }, 0.010)).collect();
        assert_eq!(of_slices(&starts), Steadiness::From(20));
        // One answer in each slice: ten slices are one value, and the ten values are too few.
        let rare: Vec<Slice> = (0..100).map(|_| slice(1, 0.010)).collect();
        assert_eq!(of_slices(&rare), Steadiness::Unknown);
    }
}
