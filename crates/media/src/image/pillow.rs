//! Pillow's resampling of 8-bit pictures, to the bit: what image processors of other tools compute.
//!
//! Invariant: a window of a scaled picture is that part of what `Image.resize` of Pillow 13 gives (its `Resample.c`):
//! weights of 22 bits, two passes in the order that Pillow chooses, each rounded to a level. No more is computed than the window
//! shows.

use std::f64::consts::PI;

use super::Filter;

/// Bits of a weight behind the point.
const BITS: u32 = 22;
/// A half, which rounds a sum.
const HALF: i32 = 1 << (BITS - 1);

/// The samples of a part of a picture, which lies in rows of a greater one.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    /// From the part's first sample on.
    pub(super) samples: &'a [u8],
    /// Samples of a pixel, and from one row to the next.
    pub(super) channels: usize,
    pub(super) stride: usize,
}

/// Which pixels of one axis are wanted of what it is scaled to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    /// Samples that there are, and pixels that they are scaled to.
    pub(super) of: u32,
    pub(super) to: u32,
    /// The first of the pixels that are wanted, and their number.
    pub(super) from: u32,
    pub(super) n: u32,
}

/// The pass that comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum First {
    Across,
    Down,
}

/// Scales what is wanted, row by row.
pub(super) fn resample(view: View<'_>, [across, down]: [Span; 2], filter: Filter, first: First) -> Vec<u8> {
    let (across, down) = (Weights::of(across, filter), Weights::of(down, filter));
    let channels = view.channels;
    match first {
        First::Across => {
            let rows = down.reach();
            let passed = horizontal(&view, rows.clone(), &across);
            let stride = across.taps.len() * channels;
            vertical(&View { samples: &passed, channels, stride }, (0, stride), rows.start, &down)
        }
        First::Down => {
            let columns = across.reach();
            let bytes = (columns.start * channels, columns.len() * channels);
            let passed = vertical(&view, bytes, 0, &down);
            let moved = across.moved(columns.start);
            let narrow = View { samples: &passed, channels, stride: bytes.1 };
            horizontal(&narrow, 0..down.taps.len(), &moved)
        }
    }
}

/// For each pixel that is wanted, the samples that it is the mean of.
struct Weights {
    taps: Vec<Tap>,
    weights: Vec<i32>,
}

/// A run of samples, and where their weights stand.
#[derive(Debug, Clone, Copy)]
struct Tap {
    first: usize,
    n: usize,
    at: usize,
}

impl Weights {
    /// `precompute_coeffs` and `normalize_coeffs_8bpc`.
    fn of(span: Span, filter: Filter) -> Self {
        let Span { of, to, from, n } = span;
        if of == to {
            // The pass is left out.
            let tap = |pixel: u32| Tap { first: pixel as usize, n: 1, at: 0 };
            return Self { taps: (from..from + n).map(tap).collect(), weights: vec![1 << BITS] };
        }
        let scale = f64::from(of) / f64::from(to);
        let larger = scale.max(1.0);
        let reach = support(filter) * larger;
        let mut found = Self { taps: Vec::with_capacity(n as usize), weights: Vec::new() };
        let mut exact = Vec::new();
        for pixel in from..from + n {
            let centre = (f64::from(pixel) + 0.5) * scale;
            let first = ((centre - reach + 0.5) as i64).max(0);
            let end = ((centre + reach + 0.5) as i64).min(i64::from(of));
            exact.clear();
            exact.extend((first..end).map(|x| kernel(filter, (x as f64 - centre + 0.5) / larger)));
            let sum: f64 = exact.iter().sum();
            let whole = |weight: &f64| {
                let weight = if sum == 0.0 { *weight } else { weight / sum } * f64::from(1 << BITS);
                (weight + if weight < 0.0 { -0.5 } else { 0.5 }) as i32
            };
            let tap = Tap { first: first as usize, n: exact.len(), at: found.weights.len() };
            found.weights.extend(exact.iter().map(whole));
            found.taps.push(tap);
        }
        found
    }

    fn weights(&self, tap: &Tap) -> &[i32] {
        &self.weights[tap.at..tap.at + tap.n]
    }

    /// The samples that any pixel needs.
    fn reach(&self) -> std::ops::Range<usize> {
        let first = self.taps.iter().map(|tap| tap.first).min().unwrap_or(0);
        let end = self.taps.iter().map(|tap| tap.first + tap.n).max().unwrap_or(0);
        first..end.max(first)
    }

    /// The same for samples of which the first `n` are gone.
    fn moved(&self, n: usize) -> Self {
        let taps = self.taps.iter().map(|tap| Tap { first: tap.first - n, ..*tap }).collect();
        Self { taps, weights: self.weights.clone() }
    }
}

/// Rows of the pixels that are wanted of each.
fn horizontal(view: &View<'_>, rows: std::ops::Range<usize>, across: &Weights) -> Vec<u8> {
    let mut scaled = Vec::with_capacity(rows.len() * across.taps.len() * view.channels);
    for row in rows {
        let row = &view.samples[row * view.stride..];
        for tap in &across.taps {
            let samples = &row[tap.first * view.channels..(tap.first + tap.n) * view.channels];
            let weights = across.weights(tap);
            if view.channels == 3 {
                let mut sums = [HALF; 3];
                for (pixel, weight) in samples.chunks_exact(3).zip(weights) {
                    for (sum, sample) in sums.iter_mut().zip(pixel) {
                        *sum += i32::from(*sample) * weight;
                    }
                }
                scaled.extend(sums.map(level));
            } else {
                let sum: i32 =
                    samples.iter().zip(weights).map(|(sample, weight)| i32::from(*sample) * weight).sum();
                scaled.push(level(HALF + sum));
            }
        }
    }
    scaled
}

/// The rows that are wanted of the bytes `from..from + n` of each row; `first` rows are not in the view.
fn vertical(view: &View<'_>, (from, n): (usize, usize), first: usize, down: &Weights) -> Vec<u8> {
    let mut scaled = Vec::with_capacity(down.taps.len() * n);
    let mut sums = vec![HALF; n];
    for tap in &down.taps {
        sums.fill(HALF);
        for (row, weight) in (tap.first - first..).zip(down.weights(tap)) {
            let row = &view.samples[row * view.stride + from..][..n];
            for (sum, sample) in sums.iter_mut().zip(row) {
                *sum += i32::from(*sample) * weight;
            }
        }
        scaled.extend(sums.iter().map(|sum| level(*sum)));
    }
    scaled
}

/// A sum of weighted levels as a level.
fn level(sum: i32) -> u8 {
    (sum >> BITS).clamp(0, 255) as u8
}

/// How far a filter reaches, in samples, where nothing shrinks.
fn support(filter: Filter) -> f64 {
    match filter {
        Filter::Nearest | Filter::Box => 0.5,
        Filter::Bilinear | Filter::Hamming => 1.0,
        Filter::Bicubic => 2.0,
        Filter::Lanczos => 3.0,
    }
}

/// The weight of a sample at a distance from the pixel's centre.
fn kernel(filter: Filter, x: f64) -> f64 {
    let near = x.abs();
    let wave = |x: f64| if x == 0.0 { 1.0 } else { (x * PI).sin() / (x * PI) };
    match filter {
        Filter::Nearest | Filter::Box => f64::from(u8::from(x > -0.5 && x <= 0.5)),
        Filter::Bilinear if near < 1.0 => 1.0 - near,
        Filter::Hamming if near == 0.0 => 1.0,
        Filter::Hamming if near < 1.0 => {
            let x = near * PI;
            x.sin() / x * (0.54 + 0.46 * x.cos())
        }
        // Keys (1981) with a = -1/2.
        Filter::Bicubic if near < 1.0 => (1.5 * near - 2.5) * near * near + 1.0,
        Filter::Bicubic if near < 2.0 => (((near - 5.0) * near + 8.0) * near - 4.0) * -0.5,
        Filter::Lanczos if (-3.0..3.0).contains(&x) => wave(x) * wave(x / 3.0),
        Filter::Bilinear | Filter::Hamming | Filter::Bicubic | Filter::Lanczos => 0.0,
    }
}
