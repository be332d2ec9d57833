//! Pseudo-random inputs that repeat, by which two ways to run a network are compared.

use fastrand::Rng;

/// How many inputs a task makes.
pub(super) const N_INPUTS: u64 = 16;

/// Tokens of texts, in turn: one sentence mostly, now and then a longer text.
pub(super) const TEXT_TOKENS: [usize; 4] = [12, 32, 12, 64];

/// A picture of a few waves of light with some noise: smooth as photographs are, and all different.
pub(super) struct Pattern {
    waves: [Wave; 4],
    seed: u64,
}

struct Wave {
    /// Waves over the picture, to the right and down, and where they begin.
    right: f32,
    down: f32,
    phase: f32,
    /// Its height in each channel, in levels.
    heights: [f32; 3],
}

impl Pattern {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut upto = |most: f32| rng.f32() * most;
        let waves = std::array::from_fn(|_| Wave {
            right: upto(6.0) - 3.0,
            down: upto(6.0) - 3.0,
            phase: upto(1.0),
            heights: std::array::from_fn(|_| upto(60.0)),
        });
        Self { waves, seed }
    }

    /// The level of a channel at x and y, both 0 to 1.
    pub(super) fn level(&self, channel: usize, x: f32, y: f32) -> u8 {
        let light: f32 = self
            .waves
            .iter()
            .map(|wave| {
                let angle = (wave.right * x + wave.down * y + wave.phase) * std::f32::consts::TAU;
                wave.heights[channel % 3] * angle.sin()
            })
            .sum();
        let place = (u64::from(x.to_bits()) << 32 | u64::from(y.to_bits())) ^ self.seed ^ channel as u64;
        let noise = Rng::with_seed(place).u8(..32) as f32 - 16.0;
        (128.0 + light + noise).clamp(0.0, 255.0) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_repeat_and_differ() {
        let drawn = |seed| {
            let pattern = Pattern::new(seed);
            let at = |i: u32| pattern.level(i as usize % 3, (i % 16) as f32 / 16.0, (i / 16) as f32 / 16.0);
            (0..256).map(at).collect::<Vec<u8>>()
        };
        assert_eq!(drawn(1), drawn(1));
        let differ = drawn(1).iter().zip(drawn(2)).filter(|(one, other)| *one != other).count();
        assert!(differ > 200, "only {differ} of 256 levels differ");
        let spread = drawn(3).iter().max().unwrap() - drawn(3).iter().min().unwrap();
        assert!(spread > 60, "levels spread over {spread} only");
    }
}
