//! The products of tiles as programs for the processor.
//!
//! Invariant: a program's text is written once, for the assembler and for the tests, which run it by
//! itself where no processor does; no tile's state outlives its program but the shapes.

#![expect(unsafe_code, reason = "the instructions are reached through assembler only")]

use std::arch::asm;

use super::super::super::{amx::Tiles, bf16::Bf16};

/// The sums of two tiles of pixels with one or two tiles of output channels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Product {
    /// The first row of each tile of pixels, and bytes from one row to the next.
    pub(super) pixels: [*const Bf16; 2],
    pub(super) stride: usize,
    /// Bytes from the rows to what each step reads.
    pub(super) steps: *const usize,
    /// How many steps there are, at least one.
    pub(super) n_steps: usize,
    /// A tile for each step and tile of output channels.
    pub(super) weights: *const Bf16,
    /// Places for four tiles: by pixels, and then by output channels, the second of which stays as it is
    /// where there is one.
    pub(super) sums: *mut f32,
}

/// What runs programs: the tiles of this thread, or in tests an interpreter.
pub(super) trait Machine {
    /// Makes the sums of a product with `N` tiles of output channels.
    ///
    /// # Safety
    /// Tiles 0 to 3 are shaped for sums, 4 and 5 for pixels, 6 and 7 for weights, and `product` leads to
    /// numbers for them.
    unsafe fn multiply<const N: usize>(&mut self, product: &Product);
}

// Four sums that do not wait for each other; pixels and weights are loaded once for two products each.
macro_rules! two_by_two {
    () => {
        "tilezero tmm0
        tilezero tmm1
        tilezero tmm2
        tilezero tmm3
        2:
        mov {first}, [{steps}]
        lea {second}, [{first} + {right}]
        add {first}, {left}
        tileloadd tmm4, [{first} + {stride}*1]
        tileloadd tmm6, [{weights} + {row}*1]
        tdpbf16ps tmm0, tmm4, tmm6
        tileloadd tmm7, [{weights} + {row}*1 + 1024]
        tdpbf16ps tmm1, tmm4, tmm7
        tileloadd tmm5, [{second} + {stride}*1]
        tdpbf16ps tmm2, tmm5, tmm6
        tdpbf16ps tmm3, tmm5, tmm7
        add {steps}, 8
        add {weights}, 2048
        dec {n_steps}
        jnz 2b
        tilestored [{sums} + {row}*1], tmm0
        tilestored [{sums} + {row}*1 + 1024], tmm1
        tilestored [{sums} + {row}*1 + 2048], tmm2
        tilestored [{sums} + {row}*1 + 3072], tmm3"
    };
}

macro_rules! two_by_one {
    () => {
        "tilezero tmm0
        tilezero tmm2
        2:
        mov {first}, [{steps}]
        lea {second}, [{first} + {right}]
        add {first}, {left}
        tileloadd tmm4, [{first} + {stride}*1]
        tileloadd tmm6, [{weights} + {row}*1]
        tdpbf16ps tmm0, tmm4, tmm6
        tileloadd tmm5, [{second} + {stride}*1]
        tdpbf16ps tmm2, tmm5, tmm6
        add {steps}, 8
        add {weights}, 1024
        dec {n_steps}
        jnz 2b
        tilestored [{sums} + {row}*1], tmm0
        tilestored [{sums} + {row}*1 + 2048], tmm2"
    };
}

/// The programs, by tiles of output channels.
#[cfg(test)]
pub(super) const PROGRAMS: [&str; 2] = [two_by_one!(), two_by_two!()];

macro_rules! run {
    ($program:ident, $product:expr) => {
        asm!(
            $program!(),
            first = out(reg) _,
            second = out(reg) _,
            left = in(reg) $product.pixels[0],
            right = in(reg) $product.pixels[1],
            stride = in(reg) $product.stride,
            steps = inout(reg) $product.steps => _,
            n_steps = inout(reg) $product.n_steps => _,
            weights = inout(reg) $product.weights => _,
            sums = in(reg) $product.sums,
            row = in(reg) 64usize,
            out("tmm0") _,
            out("tmm1") _,
            out("tmm2") _,
            out("tmm3") _,
            out("tmm4") _,
            out("tmm5") _,
            out("tmm6") _,
            out("tmm7") _,
            options(nostack),
        )
    };
}

impl Machine for Tiles {
    #[inline(always)]
    unsafe fn multiply<const N: usize>(&mut self, product: &Product) {
        // SAFETY: the caller's; the programs read and write what `product` describes, and their loop ends
        // after `n_steps`.
        unsafe {
            if N == 1 {
                run!(two_by_one, product);
            } else {
                run!(two_by_two, product);
            }
        }
    }
}
