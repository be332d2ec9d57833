//! From values to places: scales and the marks on them.

/// How values are spread over an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    Linear,
    Logarithmic,
}

/// An axis from `low` to `high`, both of them marked.
#[derive(Debug, Clone)]
pub(super) struct Axis {
    pub(super) name: &'static str,
    scale: Scale,
    low: f64,
    high: f64,
    marks: Vec<(f64, String)>,
}

/// Marks on a linear axis, about.
const MARKS: f64 = 5.0;

impl Axis {
    /// An axis from zero that holds `values`, with marks at round numbers.
    pub(super) fn linear(name: &'static str, values: impl Iterator<Item = f64>) -> Self {
        let most = values.fold(0.0, f64::max);
        let step = if most > 0.0 { round_step(most / MARKS) } else { 1.0 };
        let n_steps = (most / step).ceil().max(1.0) as u32;
        let marks = (0..=n_steps).map(|n| f64::from(n) * step).map(|at| (at, label(at))).collect();
        Self { name, scale: Scale::Linear, low: 0.0, high: f64::from(n_steps) * step, marks }
    }

    /// A logarithmic axis that holds `values` above zero, with marks at 1, 2 and 5 times powers of ten, or
    /// at the powers alone where the axis is long.
    pub(super) fn logarithmic(name: &'static str, values: impl Iterator<Item = f64>) -> Self {
        let values: Vec<f64> = values.filter(|value| *value > 0.0).collect();
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(0.0, f64::max);
        let (least, most) = if values.is_empty() { (1.0, 10.0) } else { (least, most) };
        let factors: &[f64] = if most / least > 3e3 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let powers = (least.log10().floor() as i32)..=(most.log10().ceil() as i32 + 1);
        let all: Vec<f64> = powers.flat_map(|n| factors.iter().map(move |f| f * 10f64.powi(n))).collect();
        let low = all.iter().copied().filter(|at| *at <= least).fold(f64::NAN, f64::max);
        let high = all.iter().copied().filter(|at| *at >= most && *at > low).fold(f64::NAN, f64::min);
        let marks =
            all.into_iter().filter(|at| *at >= low && *at <= high).map(|at| (at, label(at))).collect();
        Self { name, scale: Scale::Logarithmic, low, high, marks }
    }

    /// An axis of quantiles, spread by the number of nines, up to `most` of them.
    pub(super) fn nines(name: &'static str, most: f64) -> Self {
        let all = [
            (0.0, "0"),
            (0.5, "50"),
            (0.9, "90"),
            (0.99, "99"),
            (0.999, "99.9"),
            (0.9999, "99.99"),
            (0.99999, "99.999"),
            (0.999_999, "99.9999"),
        ];
        let high = most.max(1.0);
        let marks = all.into_iter().map(|(quantile, label)| (nines(quantile), format!("{label} %")));
        let marks = marks.filter(|(at, _)| *at <= high + 1e-9).collect();
        Self { name, scale: Scale::Linear, low: 0.0, high, marks }
    }

    /// Where a value stands, from 0 at the low end to 1 at the high one.
    pub(super) fn place(&self, value: f64) -> f64 {
        let place = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Logarithmic => (value / self.low).ln() / (self.high / self.low).ln(),
        };
        if place.is_finite() { place.clamp(0.0, 1.0) } else { 0.0 }
    }

    /// Places from 0 to 1 that are marked, and how.
    pub(super) fn marks(&self) -> impl Iterator<Item = (f64, &str)> {
        self.marks.iter().map(|(at, label)| (self.place(*at), label.as_str()))
    }
}

/// The number of nines of a quantile: 1 for 90 %, 2 for 99 %.
pub(super) fn nines(quantile: f64) -> f64 {
    -(1.0 - quantile).max(1e-12).log10()
}

/// The smallest of 1, 2 or 5 times a power of ten that is not below `step`.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let factors = [1.0, 2.0, 5.0, 10.0];
    // A step a rounding error above a round number is that number.
    factors.into_iter().map(|factor| factor * power).find(|at| *at >= step * (1.0 - 1e-9)).unwrap_or(step)
}

/// A round number as it stands at a mark.
fn label(value: f64) -> String {
    if value >= 10_000.0 && value % 100.0 == 0.0 {
        return format!("{}k", value / 1000.0);
    }
    let text = format!("{value:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.marks().map(|(_, label)| label).collect()
    }

    proptest! {
        #[test]
        fn every_value_has_its_place_and_marks_rise(values in proptest::collection::vec(1e-3f64..1e6, 1..20)) {
            for axis in [
                Axis::linear("x", values.iter().copied()),
                Axis::logarithmic("x", values.iter().copied()),
            ] {
                let places: Vec<f64> = axis.marks().map(|(place, _)| place).collect();
                prop_assert!(places.len() >= 2 && places.len() <= 12, "{:?}", labels(&axis));
                prop_assert!(places.is_sorted() && places[0] == 0.0);
                prop_assert!((places[places.len() - 1] - 1.0).abs() < 1e-9);
                for value in &values {
                    prop_assert!(*value <= axis.high * (1.0 + 1e-9) && *value >= axis.low * (1.0 - 1e-9));
                }
            }
        }
    }

    #[test]
    fn marks_are_round() {
        assert_eq!(
            labels(&Axis::linear("x", [870.0].into_iter())),
            ["0", "200", "400", "600", "800", "1000"]
        );
        assert_eq!(labels(&Axis::linear("x", [0.3].into_iter())), ["0", "0.1", "0.2", "0.3"]);
        assert_eq!(labels(&Axis::linear("x", [47e3].into_iter())), ["0", "10k", "20k", "30k", "40k", "50k"]);
        assert_eq!(
            labels(&Axis::logarithmic("x", [0.3, 9.0].into_iter())),
            ["0.2", "0.5", "1", "2", "5", "10"]
        );
        assert_eq!(
            labels(&Axis::logarithmic("x", [0.3, 2000.0].into_iter())),
            ["0.1", "1", "10", "100", "1000", "10k"]
        );
        assert_eq!(labels(&Axis::nines("x", 3.2)), ["0 %", "50 %", "90 %", "99 %", "99.9 %"]);
    }

    #[test]
    fn nothing_and_one_value_have_an_axis_too() {
        assert_eq!(labels(&Axis::linear("x", [].into_iter())), ["0", "1"]);
        assert_eq!(labels(&Axis::logarithmic("x", [].into_iter())), ["1", "2", "5", "10"]);
        assert_eq!(labels(&Axis::logarithmic("x", [5.0].into_iter())), ["5", "10"]);
    }
}
