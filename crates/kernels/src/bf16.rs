//! Brain floating point: the upper half of an f32 (sign, 8 bits of exponent, 7 of fraction).

/// A number in bf16.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct Bf16(u16);

impl Bf16 {
    /// Rounds to the nearest, ties to even, as the processor does; not-a-number stays so. Unlike the
    /// processor's, it keeps numbers too small to be normal.
    pub fn of(x: f32) -> Self {
        let bits = x.to_bits();
        if x.is_nan() {
            return Self((bits >> 16) as u16 | 1 << 6);
        }
        let to_even = bits >> 16 & 1;
        Self(((bits + 0x7fff + to_even) >> 16) as u16)
    }

    /// Widens it, exactly.
    pub fn wide(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn rounds_to_the_nearest(bits in any::<u32>()) {
            let x = f32::from_bits(bits);
            let found = Bf16::of(x).wide();
            if x.is_nan() {
                prop_assert!(found.is_nan());
                return Ok(());
            }
            let neighbours = [bits & 0xffff_0000, (bits & 0xffff_0000).wrapping_add(1 << 16)].map(f32::from_bits);
            let far = |y: f32| (f64::from(y) - f64::from(x)).abs();
            prop_assert!(neighbours.iter().all(|y| !y.is_finite() || far(found) <= far(*y)), "{x} to {found}");
        }
    }

    #[test]
    fn ties_go_to_even() {
        for (bits, expected) in [(0x3f80_8000, 0x3f80), (0x3f81_8000, 0x3f82), (0x7f7f_ffff, 0x7f80)] {
            assert_eq!(Bf16::of(f32::from_bits(bits)), Bf16(expected));
        }
    }
}
