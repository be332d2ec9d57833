//! Numbers on their way to be factors of products: what a form in bf16 rounds, and one in f32 takes as
//! it is.
//!
//! Invariant: places behind the numbers of a row hold zeros, whatever stood beside those numbers.

#![expect(unsafe_code, reason = "vector instructions; each function states its contract")]

use std::arch::x86_64::{
    __m256bh, __m256i, __m512, _mm256_storeu_si256, _mm512_maskz_cvtneps_pbh, _mm512_maskz_loadu_ps,
};

use super::super::{
    bf16::Bf16,
    lanes::Lanes,
    products::{Pairs, Products, Singles},
};

/// How many numbers are rounded at once: rows of factors are whole multiples of it long.
pub(super) const AT_ONCE: usize = 16;

/// How a state becomes a row of factors for the step behind it.
///
/// # Safety
/// [`Keeping::keep`] writes a register of numbers at its pointer, or nothing.
pub(super) unsafe trait Keeping: Products {
    /// Writes the first `n` of a register of states as factors, and zeros in the place of the others.
    ///
    /// # Safety
    /// The instructions of the products, and a register of numbers at `to` where they are not in f32.
    unsafe fn keep(states: Self::Sums, n: usize, to: *mut Self::Number);
}

// SAFETY: it writes nothing.
unsafe impl<V: Lanes> Keeping for Singles<V> {
    /// In f32 the states are factors themselves.
    #[inline(always)]
    unsafe fn keep(_states: V, _n: usize, _to: *mut f32) {}
}

// SAFETY: it writes 16 numbers.
unsafe impl Keeping for Pairs {
    #[inline(always)]
    unsafe fn keep(states: __m512, n: usize, to: *mut Bf16) {
        // SAFETY: the caller's.
        unsafe { round(states, n, to) }
    }
}

/// Rounds the first `n` of 16 numbers, and makes zeros of the others.
///
/// # Safety
/// AVX-512 with bf16; 16 places at `to`.
#[inline(always)]
pub(super) unsafe fn round(numbers: __m512, n: usize, to: *mut Bf16) {
    let mask = u16::MAX >> (AT_ONCE - n.min(AT_ONCE));
    // SAFETY: the caller's; both types are 32 bytes without a meaning of their own.
    unsafe {
        let rounded = _mm512_maskz_cvtneps_pbh(mask, numbers);
        _mm256_storeu_si256(to.cast(), std::mem::transmute::<__m256bh, __m256i>(rounded));
    }
}

/// Rounds rows of `n` numbers, `from_stride` apart, to rows of factors, `to_stride` apart.
///
/// # Safety
/// AVX-512 with bf16.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
pub(super) unsafe fn round_rows(
    from: &[f32],
    from_stride: usize,
    n: usize,
    to: &mut [Bf16],
    to_stride: usize,
) {
    assert!(n <= from_stride && n <= to_stride && to_stride.is_multiple_of(AT_ONCE));
    for (from, to) in from.chunks_exact(from_stride).zip(to.chunks_exact_mut(to_stride)) {
        for (from, to) in from[..n].chunks(AT_ONCE).zip(to.chunks_exact_mut(AT_ONCE)) {
            let mask = u16::MAX >> (AT_ONCE - from.len());
            // SAFETY: numbers behind the mask are not read, and there are 16 places.
            unsafe { round(_mm512_maskz_loadu_ps(mask, from.as_ptr()), from.len(), to.as_mut_ptr()) };
        }
    }
}
