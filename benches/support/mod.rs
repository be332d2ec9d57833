//! What the benchmarks share: callers, what they bring, and a server in this process.

pub(crate) mod client;
pub(crate) mod picture;
pub(crate) mod served;
pub(crate) mod work;

/// The median; of nothing, no number.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
