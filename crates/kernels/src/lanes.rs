//! A register of numbers, so that each kernel is written once for every width.
//!
//! Invariant: every function here is one or a few instructions that are inlined into a caller which
//! has checked that the processor has them. Not-a-number in gives not-a-number out.

#![expect(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "vector instructions; the trait states their contract"
)]

use std::arch::x86_64::{
    __m256, __m512, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEG_INF, _MM_HINT_T0, _mm_prefetch, _mm256_add_epi32,
    _mm256_add_ps, _mm256_castsi256_ps, _mm256_cvtps_epi32, _mm256_div_ps, _mm256_floor_ps, _mm256_fmadd_ps,
    _mm256_fnmadd_ps, _mm256_loadu_ps, _mm256_max_ps, _mm256_min_ps, _mm256_mul_ps, _mm256_set1_epi32,
    _mm256_set1_ps, _mm256_slli_epi32, _mm256_storeu_ps, _mm256_sub_ps, _mm512_add_ps, _mm512_fmadd_ps,
    _mm512_fnmadd_ps, _mm512_loadu_ps, _mm512_max_ps, _mm512_min_ps, _mm512_mul_ps, _mm512_rcp14_ps,
    _mm512_reduce_ps, _mm512_scalef_ps, _mm512_set1_ps, _mm512_storeu_ps, _mm512_sub_ps,
};

/// A register of `f32`.
///
/// # Safety
/// Every function needs the instructions of its implementation: AVX-512F and AVX-512DQ for [`__m512`],
/// AVX2 and FMA for [`__m256`]. [`Lanes::load`] and [`Lanes::store`] need `N` numbers at their pointer, of any
/// alignment.
pub(super) unsafe trait Lanes: Copy {
    /// How many numbers it holds.
    const N: usize;

    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(at: *const f32) -> Self;
    unsafe fn store(self, at: *mut f32);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    /// `self * by + to`, rounded once.
    unsafe fn mul_add(self, by: Self, to: Self) -> Self;
    /// `from - self * by`, rounded once.
    unsafe fn mul_sub_from(self, by: Self, from: Self) -> Self;
    /// The greater of `self` and `bound`; not-a-number in `self` stays.
    unsafe fn at_least(self, bound: Self) -> Self;
    /// The lesser of `self` and `bound`; not-a-number in `self` stays.
    unsafe fn at_most(self, bound: Self) -> Self;
    /// 1 / `self` for positive numbers below 2^127, within 2e-7 of its magnitude.
    unsafe fn inverse(self) -> Self;
    /// How far `self` is above the next whole number; some number in 0..1 where it is below -126.
    unsafe fn fraction(self) -> Self;
    /// `self * 2^floor(n)` for `n` up to 127; below 2e-38 where `n` is below -126 and `self` in 0..2.
    unsafe fn scale(self, n: Self) -> Self;

    /// Asks for the cache line at `at`, which need not be readable.
    #[inline(always)]
    unsafe fn prefetch(at: *const f32) {
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }

    /// 2 to the power of `self`, within 2e-7 of its magnitude, for -126..=126; beyond, as at the upper
    /// bound, or below 2e-38. The polynomial is the minimax one of the relative error on 0..1 that is
    /// exact at zero (Remez 1934).
    #[inline(always)]
    unsafe fn exp2(self) -> Self {
        let x = self.at_most(Self::splat(126.0));
        let f = x.fraction();
        let mut p = Self::splat(1.867_13e-3);
        p = p.mul_add(f, Self::splat(9.017_031e-3));
        p = p.mul_add(f, Self::splat(5.579_991_3e-2));
        p = p.mul_add(f, Self::splat(0.240_164_44));
        p = p.mul_add(f, Self::splat(0.693_151_3));
        p = p.mul_add(f, Self::splat(1.0));
        p.scale(x)
    }

    /// 1 / (1 + e^-x), within 2e-7.
    #[inline(always)]
    unsafe fn sigmoid(self) -> Self {
        let power = self.mul(Self::splat(-std::f32::consts::LOG2_E)).exp2();
        power.add(Self::splat(1.0)).inverse()
    }

    /// The hyperbolic tangent as 1 - 2 / (1 + e^2x), within 4e-7.
    #[inline(always)]
    unsafe fn tanh(self) -> Self {
        let one = Self::splat(1.0);
        let power = self.mul(Self::splat(2.0 * std::f32::consts::LOG2_E)).exp2();
        power.add(one).inverse().mul_sub_from(Self::splat(2.0), one)
    }
}

// SAFETY: loads and stores touch `N` numbers at their pointer, and nothing else touches memory.
unsafe impl Lanes for __m512 {
    const N: usize = 16;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        _mm512_set1_ps(x)
    }
    #[inline(always)]
    unsafe fn load(at: *const f32) -> Self {
        _mm512_loadu_ps(at)
    }
    #[inline(always)]
    unsafe fn store(self, at: *mut f32) {
        _mm512_storeu_ps(at, self);
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        _mm512_add_ps(self, other)
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        _mm512_sub_ps(self, other)
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        _mm512_mul_ps(self, other)
    }
    #[inline(always)]
    unsafe fn mul_add(self, by: Self, to: Self) -> Self {
        _mm512_fmadd_ps(self, by, to)
    }
    #[inline(always)]
    unsafe fn mul_sub_from(self, by: Self, from: Self) -> Self {
        _mm512_fnmadd_ps(self, by, from)
    }
    // The processor answers with the second operand where one is not a number.
    #[inline(always)]
    unsafe fn at_least(self, bound: Self) -> Self {
        _mm512_max_ps(bound, self)
    }
    #[inline(always)]
    unsafe fn at_most(self, bound: Self) -> Self {
        _mm512_min_ps(bound, self)
    }
    #[inline(always)]
    unsafe fn inverse(self) -> Self {
        // An estimate of 14 bits, and one step of Newton's.
        let estimate = _mm512_rcp14_ps(self);
        _mm512_mul_ps(estimate, _mm512_fnmadd_ps(self, estimate, _mm512_set1_ps(2.0)))
    }
    #[inline(always)]
    unsafe fn fraction(self) -> Self {
        _mm512_reduce_ps::<{ _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC }>(self)
    }
    #[inline(always)]
    unsafe fn scale(self, n: Self) -> Self {
        _mm512_scalef_ps(self, n)
    }
}

// SAFETY: as above.
unsafe impl Lanes for __m256 {
    const N: usize = 8;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        _mm256_set1_ps(x)
    }
    #[inline(always)]
    unsafe fn load(at: *const f32) -> Self {
        _mm256_loadu_ps(at)
    }
    #[inline(always)]
    unsafe fn store(self, at: *mut f32) {
        _mm256_storeu_ps(at, self);
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        _mm256_add_ps(self, other)
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        _mm256_sub_ps(self, other)
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        _mm256_mul_ps(self, other)
    }
    #[inline(always)]
    unsafe fn mul_add(self, by: Self, to: Self) -> Self {
        _mm256_fmadd_ps(self, by, to)
    }
    #[inline(always)]
    unsafe fn mul_sub_from(self, by: Self, from: Self) -> Self {
        _mm256_fnmadd_ps(self, by, from)
    }
    #[inline(always)]
    unsafe fn at_least(self, bound: Self) -> Self {
        _mm256_max_ps(bound, self)
    }
    #[inline(always)]
    unsafe fn at_most(self, bound: Self) -> Self {
        _mm256_min_ps(bound, self)
    }
    #[inline(always)]
    unsafe fn inverse(self) -> Self {
        _mm256_div_ps(_mm256_set1_ps(1.0), self)
    }
    #[inline(always)]
    unsafe fn fraction(self) -> Self {
        let n = self.at_least(Self::splat(-126.0));
        _mm256_sub_ps(n, _mm256_floor_ps(n))
    }
    #[inline(always)]
    unsafe fn scale(self, n: Self) -> Self {
        let whole = _mm256_cvtps_epi32(_mm256_floor_ps(n.at_least(Self::splat(-126.0))));
        let exponent = _mm256_add_epi32(whole, _mm256_set1_epi32(127));
        _mm256_mul_ps(self, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Form, Vectors};
    use super::*;

    /// Sigmoid and tanh of a register of numbers.
    ///
    /// # Safety
    /// The instructions of `V`.
    #[inline(always)]
    unsafe fn both<V: Lanes>(x: &[f32; 16], of: &mut [[f32; 16]; 2]) {
        for at in (0..16).step_by(V::N) {
            let x = V::load(x[at..].as_ptr());
            x.sigmoid().store(of[0][at..].as_mut_ptr());
            x.tanh().store(of[1][at..].as_mut_ptr());
        }
    }

    #[target_feature(enable = "avx512f,avx512dq")]
    unsafe fn avx512(x: &[f32; 16], of: &mut [[f32; 16]; 2]) {
        both::<__m512>(x, of);
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn avx2(x: &[f32; 16], of: &mut [[f32; 16]; 2]) {
        both::<__m256>(x, of);
    }

    fn found(form: Form, x: [f32; 16]) -> [[f32; 16]; 2] {
        let mut of = [[0.0; 16]; 2];
        match form.0 {
            // SAFETY: the form is a proof of the instructions.
            Vectors::Amx | Vectors::Avx512Bf16 | Vectors::Avx512 => unsafe { avx512(&x, &mut of) },
            // SAFETY: as above.
            Vectors::Avx2 => unsafe { avx2(&x, &mut of) },
        }
        of
    }

    #[test]
    fn sigmoid_and_tanh_are_as_near_as_they_say() {
        for form in Form::all() {
            let mut worst = [0.0f64; 2];
            for i in -12_000..12_000 {
                let x: [f32; 16] = std::array::from_fn(|lane| (i as f32 + lane as f32 / 16.0) / 120.0);
                let of = found(form, x);
                for (lane, x) in x.into_iter().map(f64::from).enumerate() {
                    let expected = [1.0 / (1.0 + (-x).exp()), x.tanh()];
                    for (worst, (of, expected)) in worst.iter_mut().zip(of.iter().zip(expected)) {
                        *worst = worst.max((f64::from(of[lane]) - expected).abs());
                    }
                }
            }
            assert!(worst[0] <= 2e-7 && worst[1] <= 4e-7, "{form}: {worst:?}");
        }
    }

    #[test]
    fn beyond_all_bounds_they_are_at_theirs_and_not_a_number_stays() {
        for form in Form::all() {
            for x in [200.0, 1e9, f32::MAX, f32::INFINITY] {
                let [[high, up], [low, down]] = [x, -x].map(|x| found(form, [x; 16]).map(|of| of[3]));
                assert_eq!((high, up, down), (1.0, 1.0, -1.0), "{form} at {x}");
                assert!((0.0..1e-37).contains(&low), "{form} at {x}: {low}");
            }
            assert!(found(form, [f32::NAN; 16]).as_flattened().iter().all(|x| x.is_nan()), "{form}");
        }
    }
}
