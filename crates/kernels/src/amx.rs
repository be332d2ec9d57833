//! The tiles of Intel's AMX (Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1,
//! chapter 18): eight registers of up to 16 rows of 64 bytes, and a product of two of them in bf16 that
//! is added to a third in f32.
//!
//! Invariant: tiles are loaded and read while a [`Tiles`] lives, and no code but this room's uses them,
//! so a run leaves none behind for the kernel to save at each switch of threads.

#![expect(unsafe_code, reason = "the instructions are reached through assembler only")]

use std::{
    arch::{asm, x86_64::__cpuid_count},
    marker::PhantomData,
    sync::OnceLock,
};

/// Says whether tiles of bf16 can be used: the processor has them and AVX-512 with conversion to bf16,
/// and the kernel lends this process the room for their state. It is asked once.
pub(super) fn is_usable() -> bool {
    static USABLE: OnceLock<bool> = OnceLock::new();
    *USABLE.get_or_init(|| {
        const BF16: u32 = 1 << 22;
        const TILE: u32 = 1 << 24;
        let vectors = std::arch::is_x86_feature_detected!("avx512f")
            && std::arch::is_x86_feature_detected!("avx512bw")
            && std::arch::is_x86_feature_detected!("avx512dq")
            && std::arch::is_x86_feature_detected!("avx512vl")
            && std::arch::is_x86_feature_detected!("avx512bf16");
        let tiles = BF16 | TILE;
        // A processor that has AVX-512 has this leaf.
        vectors && __cpuid_count(7, 0).edx & tiles == tiles && is_lent()
    })
}

/// Asks Linux for the state of the tiles, for every thread of this process (Documentation/arch/x86/xstate.rst).
#[cfg(target_os = "linux")]
fn is_lent() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const XFEATURE_XTILEDATA: i64 = 18;
    let answer: i64;
    // SAFETY: the call reads and writes no memory; `syscall` changes no register beyond those named.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => answer,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    answer == 0
}

/// Other systems have their own ways to ask.
#[cfg(not(target_os = "linux"))]
fn is_lent() -> bool {
    false
}

/// The shapes of the eight tiles, in the form that `ldtilecfg` reads.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy)]
pub(super) struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Shapes {
    /// Tiles of these many rows (1 to 16) of 64 bytes.
    pub(super) const fn of(n_rows: [u8; 8]) -> Self {
        let mut shapes =
            Self { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        let mut tile = 0;
        while tile < 8 {
            assert!(1 <= n_rows[tile] && n_rows[tile] <= 16, "a tile has 1 to 16 rows");
            shapes.row_bytes[tile] = 64;
            shapes.rows[tile] = n_rows[tile];
            tile += 1;
        }
        shapes
    }

    /// The same, but for `tile`, whose rows have so many bytes (4 to 64, whole pairs of bf16).
    pub(super) const fn narrow(mut self, tile: usize, bytes: u16) -> Self {
        assert!(4 <= bytes && bytes <= 64 && bytes.is_multiple_of(4), "a row has whole pairs");
        self.row_bytes[tile] = bytes;
        self
    }

    /// Rows of a tile, and their bytes.
    #[cfg(test)]
    pub(super) fn tile(&self, tile: usize) -> [usize; 2] {
        [usize::from(self.rows[tile]), usize::from(self.row_bytes[tile])]
    }
}

/// The tiles of this thread, shaped; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Tiles {
    /// Tiles belong to a thread.
    of_thread: PhantomData<*const ()>,
}

impl Tiles {
    /// Shapes the tiles of this thread, all zero.
    ///
    /// # Safety
    /// [`is_usable`] has said so, and this thread has no other [`Tiles`].
    pub(super) unsafe fn shape(shapes: &Shapes) -> Self {
        // SAFETY: the caller's; the instruction reads 64 bytes at `shapes`, all of them set.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) shapes, options(nostack, preserves_flags, readonly));
        }
        Self { of_thread: PhantomData }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: tiles were shaped, so the processor has them.
        unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One product of tiles: C[m][n] += sum over k of A[m][2k] B[k][2n] + A[m][2k + 1] B[k][2n + 1].
    #[test]
    fn a_product_of_tiles_is_a_product_of_matrices() {
        if !is_usable() {
            eprintln!("skipped: this processor has no AMX");
            return;
        }
        let number = |i: usize| (i % 7) as f32 - 3.0;
        let bf16 = |x: f32| (x.to_bits() >> 16) as u16;
        let a: Vec<u16> = (0..16 * 32).map(|i| bf16(number(i))).collect();
        let b: Vec<u16> = (0..16 * 32).map(|i| bf16(number(3 * i + 1))).collect();
        let mut c = vec![0f32; 16 * 16];
        // SAFETY: the tiles are usable, and each place has 16 rows of 64 bytes.
        unsafe {
            let _tiles = Tiles::shape(&Shapes::of([16; 8]));
            asm!(
                "tilezero tmm0",
                "tileloadd tmm1, [{a} + {row}]",
                "tileloadd tmm2, [{b} + {row}]",
                "tdpbf16ps tmm0, tmm1, tmm2",
                "tilestored [{c} + {row}], tmm0",
                a = in(reg) a.as_ptr(),
                b = in(reg) b.as_ptr(),
                c = in(reg) c.as_mut_ptr(),
                row = in(reg) 64usize,
                options(nostack),
            );
        }
        for m in 0..16 {
            for n in 0..16 {
                let expected: f32 =
                    (0..32).map(|k| number(m * 32 + k) * number(3 * (k / 2 * 32 + 2 * n + k % 2) + 1)).sum();
                assert_eq!(c[m * 16 + n], expected, "row {m}, column {n}");
            }
        }
    }
}
