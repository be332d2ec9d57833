//! Planes of numbers to pixels and back, eight pixels of eight channels at a time.
//!
//! Invariant: pointers are made of slices whose lengths were checked against the layout on the way in,
//! and stay within them. What is written beside a pixel's channels is zero, and is written before
//! whatever belongs there.

#![expect(unsafe_code, reason = "vector instructions over pointers into checked slices")]

use std::arch::x86_64::{
    __m256, _CMP_UNORD_Q, _mm_loadu_si128, _mm_packus_epi32, _mm_storeu_si128, _mm256_add_epi32,
    _mm256_and_si256, _mm256_blendv_epi8, _mm256_castps_si256, _mm256_castsi256_ps, _mm256_castsi256_si128,
    _mm256_cmp_ps, _mm256_cvtepu16_epi32, _mm256_extracti128_si256, _mm256_loadu_ps, _mm256_or_si256,
    _mm256_permute2f128_ps, _mm256_set1_epi32, _mm256_setzero_ps, _mm256_shuffle_ps, _mm256_slli_epi32,
    _mm256_srli_epi32, _mm256_storeu_ps, _mm256_unpackhi_ps, _mm256_unpacklo_ps,
};

use super::{
    bf16::Bf16,
    maps::{Layout, Number},
};

/// Pixels and channels of a block.
const N: usize = 8;

/// Says whether this processor has the instructions.
pub(super) fn are_usable() -> bool {
    std::arch::is_x86_feature_detected!("avx2")
}

/// A number of which eight are a part of a register.
///
/// # Safety
/// Every function needs AVX2, and eight numbers at its pointer, of any alignment.
pub(super) unsafe trait Eight: Number {
    /// Reads eight numbers and widens them.
    unsafe fn load(at: *const Self) -> __m256;
    /// Rounds eight numbers, to bits for [`Eight::store`].
    unsafe fn round(numbers: __m256) -> __m256;
    /// Writes eight numbers of such bits.
    unsafe fn store(bits: __m256, at: *mut Self);
}

// SAFETY: it reads and writes eight numbers.
unsafe impl Eight for f32 {
    #[inline(always)]
    unsafe fn load(at: *const Self) -> __m256 {
        // SAFETY: the caller's.
        unsafe { _mm256_loadu_ps(at) }
    }

    #[inline(always)]
    unsafe fn round(numbers: __m256) -> __m256 {
        numbers
    }

    #[inline(always)]
    unsafe fn store(bits: __m256, at: *mut Self) {
        // SAFETY: the caller's.
        unsafe { _mm256_storeu_ps(at, bits) }
    }
}

// SAFETY: as above.
unsafe impl Eight for Bf16 {
    #[inline(always)]
    unsafe fn load(at: *const Self) -> __m256 {
        // SAFETY: the caller's.
        unsafe {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(at.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        }
    }

    // As `Bf16::of` does it.
    #[inline(always)]
    unsafe fn round(numbers: __m256) -> __m256 {
        // SAFETY: the caller's.
        unsafe {
            let bits = _mm256_castps_si256(numbers);
            let upper = _mm256_srli_epi32::<16>(bits);
            let to_even = _mm256_and_si256(upper, _mm256_set1_epi32(1));
            let half = _mm256_add_epi32(to_even, _mm256_set1_epi32(0x7fff));
            let rounded = _mm256_srli_epi32::<16>(_mm256_add_epi32(bits, half));
            let quiet = _mm256_or_si256(upper, _mm256_set1_epi32(1 << 6));
            let is_nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(numbers, numbers));
            _mm256_castsi256_ps(_mm256_blendv_epi8(rounded, quiet, is_nan))
        }
    }

    #[inline(always)]
    unsafe fn store(bits: __m256, at: *mut Self) {
        // SAFETY: the caller's.
        unsafe {
            let bits = _mm256_castps_si256(bits);
            let (low, high) = (_mm256_castsi256_si128(bits), _mm256_extracti128_si256::<1>(bits));
            _mm_storeu_si128(at.cast(), _mm_packus_epi32(low, high));
        }
    }
}

/// Lays one picture out; the slices fit the layout.
pub(super) fn lay_out<E: Eight>(layout: &Layout, picture: &[f32], maps: &mut [E]) {
    assert!(are_usable() && picture.len() == layout.n_channels * layout.height * layout.width);
    assert!(maps.len() == layout.picture());
    // SAFETY: as asserted.
    unsafe { lay_out_in_blocks(layout, picture, maps) }
}

/// Gathers one picture; the slices fit the layout.
pub(super) fn gather<E: Eight>(layout: &Layout, maps: &[E], picture: &mut [f32]) {
    assert!(are_usable() && picture.len() == layout.n_channels * layout.height * layout.width);
    assert!(maps.len() == layout.picture());
    // SAFETY: as asserted.
    unsafe { gather_in_blocks(layout, maps, picture) }
}

/// Eight pixels of eight channels of a layout, or as many as there are.
struct Block {
    /// Where the first number is in the maps, and from one pixel to the next.
    maps: usize,
    pixel: usize,
    n_pixels: usize,
    /// Where it is in the planes, and from one plane to the next.
    planes: usize,
    plane: usize,
    n_channels: usize,
}

impl Block {
    /// Says whether whole registers of eight numbers are within maps of this length.
    fn is_inside(&self, len: usize) -> bool {
        self.n_pixels == N && self.maps + (N - 1) * self.pixel + N <= len
    }
}

/// Does something with each block of a layout, row by row. The last channels come first: what is beside
/// those of a pixel are the first of the next one.
#[inline(always)]
fn each(layout: &Layout, mut work: impl FnMut(Block)) {
    let plane = layout.height * layout.width;
    for y in 0..layout.height {
        for channel in (0..layout.n_channels).step_by(N).rev() {
            for x in (0..layout.width).step_by(N) {
                // The last block of a row moves some pixels twice rather than few.
                let x = x.min(layout.width.saturating_sub(N));
                work(Block {
                    maps: layout.at(y, x) + channel,
                    pixel: layout.pixel,
                    n_pixels: N.min(layout.width - x),
                    planes: channel * plane + y * layout.width + x,
                    plane,
                    n_channels: N.min(layout.n_channels - channel),
                });
            }
        }
    }
}

/// # Safety
/// AVX2; slices as long as the layout says.
#[target_feature(enable = "avx2")]
unsafe fn lay_out_in_blocks<E: Eight>(layout: &Layout, picture: &[f32], maps: &mut [E]) {
    each(layout, |block| {
        let mut rows = [_mm256_setzero_ps(); N];
        if block.is_inside(maps.len()) {
            let (from, to) = (picture[block.planes..].as_ptr(), maps[block.maps..].as_mut_ptr());
            // SAFETY: eight pixels of each plane are in the picture, and eight registers in the maps.
            unsafe {
                for (i, row) in rows.iter_mut().enumerate() {
                    if i < block.n_channels {
                        *row = E::round(f32::load(from.add(i * block.plane)));
                    }
                }
                for (i, pixel) in transposed(rows).into_iter().enumerate() {
                    E::store(pixel, to.add(i * block.pixel));
                }
            }
            return;
        }
        for (i, row) in rows.iter_mut().enumerate().take(block.n_channels) {
            let numbers = read(&picture[block.planes + i * block.plane..], block.n_pixels);
            // SAFETY: the caller's.
            *row = unsafe { E::round(numbers) };
        }
        for (i, pixel) in transposed(rows).into_iter().enumerate().take(block.n_pixels) {
            write(pixel, &mut maps[block.maps + i * block.pixel..], N);
        }
    });
}

/// # Safety
/// AVX2; slices as long as the layout says.
#[target_feature(enable = "avx2")]
unsafe fn gather_in_blocks<E: Eight>(layout: &Layout, maps: &[E], picture: &mut [f32]) {
    each(layout, |block| {
        let mut pixels = [_mm256_setzero_ps(); N];
        if block.is_inside(maps.len()) {
            let (from, to) = (maps[block.maps..].as_ptr(), picture[block.planes..].as_mut_ptr());
            // SAFETY: eight registers are in the maps, and eight pixels of each plane in the picture.
            unsafe {
                for (i, pixel) in pixels.iter_mut().enumerate() {
                    *pixel = E::load(from.add(i * block.pixel));
                }
                for (i, row) in transposed(pixels).into_iter().enumerate() {
                    if i < block.n_channels {
                        f32::store(row, to.add(i * block.plane));
                    }
                }
            }
            return;
        }
        for (i, pixel) in pixels.iter_mut().enumerate().take(block.n_pixels) {
            *pixel = read(&maps[block.maps + i * block.pixel..], N);
        }
        for (i, row) in transposed(pixels).into_iter().enumerate().take(block.n_channels) {
            write(row, &mut picture[block.planes + i * block.plane..], block.n_pixels);
        }
    });
}

/// The first `n` numbers, or as many as there are, and zeros behind them.
#[inline]
#[target_feature(enable = "avx2")]
fn read<E: Eight>(from: &[E], n: usize) -> __m256 {
    if n == N && from.len() >= N {
        // SAFETY: there are eight.
        return unsafe { E::load(from.as_ptr()) };
    }
    let mut numbers = [E::of(0.0); N];
    numbers.iter_mut().zip(&from[..n.min(from.len())]).for_each(|(to, from)| *to = *from);
    // SAFETY: there are eight.
    unsafe { E::load(numbers.as_ptr()) }
}

/// Writes the first `n` numbers of such bits, or as many as there is room for.
#[inline]
#[target_feature(enable = "avx2")]
fn write<E: Eight>(bits: __m256, to: &mut [E], n: usize) {
    if n == N && to.len() >= N {
        // SAFETY: there is room for eight.
        return unsafe { E::store(bits, to.as_mut_ptr()) };
    }
    let mut numbers = [E::of(0.0); N];
    // SAFETY: there is room for eight.
    unsafe { E::store(bits, numbers.as_mut_ptr()) };
    to.iter_mut().zip(&numbers[..n]).for_each(|(to, from)| *to = *from);
}

/// Makes columns of rows: by neighbours, by pairs, and by halves.
#[inline]
#[target_feature(enable = "avx2")]
fn transposed(rows: [__m256; N]) -> [__m256; N] {
    let mut pairs = rows;
    for i in (0..N).step_by(2) {
        pairs[i] = _mm256_unpacklo_ps(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm256_unpackhi_ps(rows[i], rows[i + 1]);
    }
    let mut fours = pairs;
    for i in [0, 4] {
        for half in 0..2 {
            let (low, high) = (pairs[i + half], pairs[i + half + 2]);
            fours[i + 2 * half] = _mm256_shuffle_ps::<0b01_00_01_00>(low, high);
            fours[i + 2 * half + 1] = _mm256_shuffle_ps::<0b11_10_11_10>(low, high);
        }
    }
    let mut columns = fours;
    for i in 0..4 {
        columns[i] = _mm256_permute2f128_ps::<0x20>(fours[i], fours[i + 4]);
        columns[i + 4] = _mm256_permute2f128_ps::<0x31>(fours[i], fours[i + 4]);
    }
    columns
}
