//! The inputs of short or odd runs, copied to where tiles can read them in full.
//!
//! Invariant: what fills up a copy is zero, and only numbers of runs are read.

#![expect(unsafe_code, reason = "vector instructions over pointers into checked slices")]

use std::arch::x86_64::{
    _mm_maskz_loadu_epi16, _mm_storeu_epi16, _mm256_maskz_loadu_epi16, _mm256_storeu_epi16,
    _mm512_maskz_loadu_epi16, _mm512_storeu_epi16,
};

use super::{
    super::{
        super::{aligned::Aligned, bf16::Bf16},
        packed::MOST_DEEP,
    },
    Work,
};

/// The runs of each pixel of two strips, one behind the other.
pub(super) struct Gathered {
    /// Zero wherever no run's number is.
    numbers: Aligned<Bf16>,
    strip: usize,
    pixel: usize,
}

impl Gathered {
    pub(super) fn new(work: &Work<'_>) -> Self {
        let pixel = work.steps.len() * MOST_DEEP;
        let strip = work.strips.len * pixel;
        // The last run is written with what fills up a register behind it.
        Self { numbers: Aligned::zeros(2 * strip + MOST_DEEP), strip, pixel }
    }

    /// The first row of each strip, and numbers from one row to the next.
    pub(super) fn pixels(&self) -> ([*const Bf16; 2], usize) {
        ([0, self.strip].map(|at| self.numbers[at..].as_ptr()), self.pixel)
    }

    /// Copies the runs of the pixels that begin at `strips`.
    ///
    /// # Safety
    /// AVX-512; as many pixels as a strip has from each pointer on.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    pub(super) unsafe fn fill(&mut self, work: &Work<'_>, strips: [*const Bf16; 2]) {
        // SAFETY: the caller's.
        unsafe {
            match work.run_len {
                ..=8 => self.copy::<8>(work, strips),
                9..=16 => self.copy::<16>(work, strips),
                _ => self.copy::<32>(work, strips),
            }
        }
    }

    /// [`Gathered::fill`] by registers of `W` numbers: 8, 16 or 32.
    ///
    /// # Safety
    /// As there.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn copy<const W: usize>(&mut self, work: &Work<'_>, strips: [*const Bf16; 2]) {
        let (n_whole, rest) = (work.run_len / W, work.run_len % W);
        let mask = (1u32 << rest) - 1;
        for (strip, from) in strips.into_iter().enumerate() {
            for pixel in 0..work.strips.len {
                let mut to = self.numbers[strip * self.strip + pixel * self.pixel..].as_mut_ptr();
                for start in &work.starts {
                    // SAFETY: the caller's; what is behind the mask is not read. A register is within the
                    // room: zeros behind a run are where the next one comes, or where zeros are.
                    unsafe {
                        let run = from.add(pixel * work.step + start);
                        for whole in 0..n_whole {
                            copy_register::<W>(u32::MAX, run.add(whole * W), to.add(whole * W));
                        }
                        if rest > 0 {
                            copy_register::<W>(mask, run.add(n_whole * W), to.add(n_whole * W));
                        }
                        to = to.add(work.run_len);
                    }
                }
            }
        }
    }
}

/// Copies those of `W` numbers that the mask names, and makes zeros of the others.
///
/// # Safety
/// AVX-512; the numbers that are named at `from`, and `W` at `to`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn copy_register<const W: usize>(mask: u32, from: *const Bf16, to: *mut Bf16) {
    let (from, to) = (from.cast(), to.cast());
    // SAFETY: the caller's; a mask has a bit for each of `W` numbers.
    unsafe {
        match W {
            8 => _mm_storeu_epi16(to, _mm_maskz_loadu_epi16(mask as u8, from)),
            16 => _mm256_storeu_epi16(to, _mm256_maskz_loadu_epi16(mask as u16, from)),
            _ => _mm512_storeu_epi16(to, _mm512_maskz_loadu_epi16(mask, from)),
        }
    }
}
