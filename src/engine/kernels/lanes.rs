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
    __m256, __m512, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEAREST_INT, _MM_HINT_T0, _mm_prefetch,
    _mm256_add_epi32, _mm256_add_ps, _mm256_castsi256_ps, _mm256_cvtps_epi32, _mm256_div_ps, _mm256_fmadd_ps,
    _mm256_fnmadd_ps, _mm256_loadu_ps, _mm256_max_ps, _mm256_min_ps, _mm256_mul_ps, _mm256_round_ps,
    _mm256_set1_epi32, _mm256_set1_ps, _mm256_slli_epi32, _mm256_storeu_ps, _mm256_sub_ps, _mm512_add_ps,
    _mm512_div_ps, _mm512_fmadd_ps, _mm512_fnmadd_ps, _mm512_loadu_ps, _mm512_max_ps, _mm512_min_ps,
    _mm512_mul_ps, _mm512_roundscale_ps, _mm512_scalef_ps, _mm512_set1_ps, _mm512_storeu_ps, _mm512_sub_ps,
};

/// A register of `f32`.
///
/// # Safety
/// Every function needs the instructions of its implementation: AVX-512F for [`__m512`], AVX2 and
/// FMA for [`__m256`]. [`Lanes::load`] and [`Lanes::store`] need `N` numbers at their pointer, of any
/// alignment.
pub(super) unsafe trait Lanes: Copy {
    /// How many numbers it holds.
    const N: usize;

    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(at: *const f32) -> Self;
    unsafe fn store(self, at: *mut f32);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn div(self, other: Self) -> Self;
    /// `self * by + to`, rounded once.
    unsafe fn mul_add(self, by: Self, to: Self) -> Self;
    /// `from - self * by`, rounded once.
    unsafe fn mul_sub_from(self, by: Self, from: Self) -> Self;
    /// The greater of `self` and `bound`; not-a-number in `self` stays.
    unsafe fn at_least(self, bound: Self) -> Self;
    /// The lesser of `self` and `bound`; not-a-number in `self` stays.
    unsafe fn at_most(self, bound: Self) -> Self;
    /// `self * log2(e)` to the nearest whole number.
    unsafe fn halvings(self) -> Self;
    /// `self * 2^n` for whole `n` in -126..=127.
    unsafe fn scale(self, n: Self) -> Self;

    /// Asks for the cache line at `at`, which need not be readable.
    #[inline(always)]
    unsafe fn prefetch(at: *const f32) {
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }

    /// e to the power of `self`, within 2e-7 of its magnitude, for -87..=88; beyond, as at the bound.
    /// The argument is reduced by Cody and Waite's two-part ln 2; the polynomial is Taylor's.
    #[inline(always)]
    unsafe fn exp(self) -> Self {
        let x = self.at_least(Self::splat(-87.0)).at_most(Self::splat(88.0));
        let n = x.halvings();
        let r = n.mul_sub_from(Self::splat(0.693_359_4), x);
        let r = n.mul_sub_from(Self::splat(-2.121_944_4e-4), r);
        let mut p = Self::splat(1.388_888_9e-3);
        p = p.mul_add(r, Self::splat(8.333_333e-3));
        p = p.mul_add(r, Self::splat(4.166_666_6e-2));
        p = p.mul_add(r, Self::splat(0.166_666_67));
        p = p.mul_add(r, Self::splat(0.5));
        p = p.mul_add(r, Self::splat(1.0));
        p = p.mul_add(r, Self::splat(1.0));
        p.scale(n)
    }

    /// 1 / (1 + e^-x).
    #[inline(always)]
    unsafe fn sigmoid(self) -> Self {
        let one = Self::splat(1.0);
        one.div(one.add(Self::splat(0.0).sub(self).exp()))
    }

    /// The hyperbolic tangent as 1 - 2 / (1 + e^2x), within 2e-7.
    #[inline(always)]
    unsafe fn tanh(self) -> Self {
        let one = Self::splat(1.0);
        one.sub(Self::splat(2.0).div(one.add(self.add(self).exp())))
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
    unsafe fn div(self, other: Self) -> Self {
        _mm512_div_ps(self, other)
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
    unsafe fn halvings(self) -> Self {
        let n = _mm512_mul_ps(self, _mm512_set1_ps(std::f32::consts::LOG2_E));
        _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(n)
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
    unsafe fn div(self, other: Self) -> Self {
        _mm256_div_ps(self, other)
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
    unsafe fn halvings(self) -> Self {
        let n = _mm256_mul_ps(self, _mm256_set1_ps(std::f32::consts::LOG2_E));
        _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(n)
    }
    #[inline(always)]
    unsafe fn scale(self, n: Self) -> Self {
        let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
        _mm256_mul_ps(self, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent)))
    }
}
