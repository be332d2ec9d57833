//! Arithmetic at the speed of the core: what tract does slowly, and a JPEG's samples; it names no engine.
//!
//! Invariant: `unsafe` is written in this room only, and every function that other rooms see is safe:
//! it checks its slices before a pointer is made of them, and it runs a form of the arithmetic only
//! where the processor has the instructions.

#![cfg_attr(
    not(target_arch = "x86_64"),
    expect(unused, unreachable_code, reason = "there is no form for this processor yet")
)]

mod aligned;
#[cfg(target_arch = "x86_64")]
mod amx;
pub mod bf16;
pub mod chain;
pub mod conv;
#[cfg(test)]
mod guarded;
#[cfg(target_arch = "x86_64")]
mod lanes;
pub mod maps;
#[cfg(target_arch = "x86_64")]
mod moves;
#[cfg(test)]
mod noise;
pub mod pixels;
#[cfg(target_arch = "x86_64")]
mod products;
pub mod recurrent;

use std::fmt;

/// What the factors of a product are rounded to. Sums are kept in f32 either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Precision {
    F32,
    /// The upper half of an f32: its range, with 8 bits of precision.
    Bf16,
}

/// A form of the kernels: which vector instructions they are made of.
///
/// A value of this type is a proof that the processor has them: [`Form::all`] is the only source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Form(Vectors);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Vectors {
    /// Tiles of 16 rows of 32 factors in bf16, and AVX-512 around them.
    #[cfg(target_arch = "x86_64")]
    Amx,
    /// 16 lanes of products of two pairs in bf16.
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16,
    /// 16 lanes, 32 registers.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// 8 lanes, 16 registers.
    #[cfg(target_arch = "x86_64")]
    Avx2,
}

impl Form {
    /// The fastest form of a precision that this processor can run, where it can run one. Products in
    /// bf16 that are no faster than those in f32 would give precision away for nothing: such a form is
    /// not offered.
    pub fn best(precision: Precision) -> Option<Self> {
        let mut forms = Self::all().into_iter();
        match precision {
            Precision::F32 => forms.find(|form| form.precision() == Precision::F32),
            Precision::Bf16 => forms.next().filter(|form| form.precision() == Precision::Bf16),
        }
    }

    /// Every form that this processor can run, the fastest first.
    #[cfg(target_arch = "x86_64")]
    pub fn all() -> Vec<Self> {
        let avx512 =
            std::arch::is_x86_feature_detected!("avx512f") && std::arch::is_x86_feature_detected!("avx512dq");
        let bf16 = avx512
            && std::arch::is_x86_feature_detected!("avx512bw")
            && std::arch::is_x86_feature_detected!("avx512vl")
            && std::arch::is_x86_feature_detected!("avx512bf16");
        let avx2 = std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma");
        let found = [
            (amx::is_usable(), Vectors::Amx),
            (bf16 && has_fast_pairs(), Vectors::Avx512Bf16),
            (avx512, Vectors::Avx512),
            (bf16 && !has_fast_pairs(), Vectors::Avx512Bf16),
            (avx2, Vectors::Avx2),
        ];
        found.into_iter().filter(|(has, _)| *has).map(|(_, vectors)| Self(vectors)).collect()
    }

    /// Every form that this processor can run, the fastest first: there is none for it yet.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn all() -> Vec<Self> {
        Vec::new()
    }

    /// What it rounds factors to.
    pub fn precision(self) -> Precision {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Vectors::Amx | Vectors::Avx512Bf16 => Precision::Bf16,
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx512 | Vectors::Avx2 => Precision::F32,
        }
    }

    /// How many numbers one register of f32 holds.
    fn n_lanes(self) -> usize {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Vectors::Amx | Vectors::Avx512Bf16 | Vectors::Avx512 => 16,
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx2 => 8,
        }
    }
}

/// Says whether products of pairs in bf16 are faster than those of single numbers in f32. No flag tells:
/// AMD's processors run as many instructions of the one kind as of the other, Intel's fewer of pairs.
#[cfg(target_arch = "x86_64")]
fn has_fast_pairs() -> bool {
    let vendor = std::arch::x86_64::__cpuid(0);
    [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).as_flattened() == b"AuthenticAMD"
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Vectors::Amx => f.write_str("amx-bf16"),
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx512Bf16 => f.write_str("avx512-bf16"),
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx512 => f.write_str("avx512-f32"),
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx2 => f.write_str("avx2-f32"),
        }
    }
}
