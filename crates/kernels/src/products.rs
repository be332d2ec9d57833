//! How a form multiplies: what its factors are, how many inputs one product takes, and how maps become
//! registers and registers maps.
//!
//! Invariant: every function is one or a few instructions that are inlined into a caller which has
//! checked that the processor has them. Not-a-number in gives not-a-number out.

#![expect(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "vector instructions; the trait states their contract"
)]

use std::{
    arch::x86_64::{
        __m256bh, __m256i, __m512, __m512bh, __m512i, _mm256_loadu_si256, _mm256_storeu_si256,
        _mm512_castsi512_ps, _mm512_cvtepu16_epi32, _mm512_cvtneps_pbh, _mm512_dpbf16_ps, _mm512_loadu_si512,
        _mm512_set1_epi32, _mm512_slli_epi32,
    },
    marker::PhantomData,
    mem::transmute,
};

use super::{bf16::Bf16, lanes::Lanes, maps::Number};

/// The products of a form: in each lane, [`Products::DEPTH`] inputs by their weights for one output.
///
/// # Safety
/// Every function needs the instructions of its implementation, and at its pointer the numbers that it
/// names, of any alignment.
pub(super) unsafe trait Products {
    /// What maps and weights are made of.
    type Number: Number;
    /// A register of sums.
    type Sums: Lanes;
    /// A register of factors.
    type Factors: Copy;
    /// How many inputs one product takes.
    const DEPTH: usize;

    /// `DEPTH` inputs, the same in each lane.
    unsafe fn inputs(at: *const Self::Number) -> Self::Factors;
    /// One input, the same in each lane, and zeros in the place of those that would follow.
    unsafe fn last_input(at: *const Self::Number) -> Self::Factors;
    /// `DEPTH` weights for each lane.
    unsafe fn weights(at: *const Self::Number) -> Self::Factors;
    /// `inputs * weights + to`.
    unsafe fn multiply_add(inputs: Self::Factors, weights: Self::Factors, to: Self::Sums) -> Self::Sums;
    /// Reads a number of a map for each lane.
    unsafe fn load(at: *const Self::Number) -> Self::Sums;
    /// Rounds to the numbers of a map.
    unsafe fn store(sums: Self::Sums, at: *mut Self::Number);
}

/// Products in f32.
pub(super) struct Singles<V>(PhantomData<V>);

// SAFETY: loads and stores touch a register of numbers at their pointer, or the one that is named.
unsafe impl<V: Lanes> Products for Singles<V> {
    type Number = f32;
    type Sums = V;
    type Factors = V;
    const DEPTH: usize = 1;

    #[inline(always)]
    unsafe fn inputs(at: *const f32) -> V {
        V::splat(*at)
    }
    #[inline(always)]
    unsafe fn last_input(at: *const f32) -> V {
        V::splat(*at)
    }
    #[inline(always)]
    unsafe fn weights(at: *const f32) -> V {
        V::load(at)
    }
    #[inline(always)]
    unsafe fn multiply_add(inputs: V, weights: V, to: V) -> V {
        inputs.mul_add(weights, to)
    }
    #[inline(always)]
    unsafe fn load(at: *const f32) -> V {
        V::load(at)
    }
    #[inline(always)]
    unsafe fn store(sums: V, at: *mut f32) {
        sums.store(at);
    }
}

/// Products of pairs in bf16, with sums in f32: AVX-512 with bf16.
pub(super) struct Pairs;

// SAFETY: as above; types that are transmuted are as large and mean bits.
unsafe impl Products for Pairs {
    type Number = Bf16;
    type Sums = __m512;
    type Factors = __m512bh;
    const DEPTH: usize = 2;

    #[inline(always)]
    unsafe fn inputs(at: *const Bf16) -> __m512bh {
        transmute::<__m512i, __m512bh>(_mm512_set1_epi32(at.cast::<i32>().read_unaligned()))
    }
    #[inline(always)]
    unsafe fn last_input(at: *const Bf16) -> __m512bh {
        transmute::<__m512i, __m512bh>(_mm512_set1_epi32(i32::from(*at.cast::<u16>())))
    }
    #[inline(always)]
    unsafe fn weights(at: *const Bf16) -> __m512bh {
        transmute::<__m512i, __m512bh>(_mm512_loadu_si512(at.cast()))
    }
    #[inline(always)]
    unsafe fn multiply_add(inputs: __m512bh, weights: __m512bh, to: __m512) -> __m512 {
        // The second factor may come from memory, spread to all lanes on the way.
        _mm512_dpbf16_ps(to, weights, inputs)
    }
    #[inline(always)]
    unsafe fn load(at: *const Bf16) -> __m512 {
        let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(at.cast()));
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
    }
    #[inline(always)]
    unsafe fn store(sums: __m512, at: *mut Bf16) {
        _mm256_storeu_si256(at.cast(), transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(sums)));
    }
}
