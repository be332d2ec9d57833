//! Arithmetic at the speed of the core: what tract does slowly, done by hand; it names no engine.
//!
//! Invariant: `unsafe` is written in this room only, and every function that other rooms see is safe:
//! it checks its slices before a pointer is made of them, and it runs a form of the arithmetic only
//! where the processor has the instructions.

mod aligned;
pub mod conv;
pub mod gru;
#[cfg(test)]
mod guarded;
#[cfg(target_arch = "x86_64")]
mod lanes;
pub mod maps;

use std::fmt;

/// A form of the kernels: which vector instructions they are made of.
///
/// A value of this type is a proof that the processor has them: [`Form::all`] is the only source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Form(Vectors);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Vectors {
    /// 16 lanes, 32 registers.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// 8 lanes, 16 registers.
    #[cfg(target_arch = "x86_64")]
    Avx2,
}

impl Form {
    /// The fastest form that this processor can run, where it can run one.
    pub fn best() -> Option<Self> {
        Self::all().into_iter().next()
    }

    /// Every form that this processor can run, the fastest first.
    #[cfg(target_arch = "x86_64")]
    pub fn all() -> Vec<Self> {
        let avx512 = std::arch::is_x86_feature_detected!("avx512f");
        let avx2 = std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma");
        let found = [(avx512, Vectors::Avx512), (avx2, Vectors::Avx2)];
        found.into_iter().filter(|(has, _)| *has).map(|(_, vectors)| Self(vectors)).collect()
    }

    /// Every form that this processor can run, the fastest first: there is none for it yet.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn all() -> Vec<Self> {
        Vec::new()
    }

    /// How many numbers one register holds.
    fn n_lanes(self) -> usize {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx512 => 16,
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx2 => 8,
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx512 => f.write_str("avx512-f32"),
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx2 => f.write_str("avx2-f32"),
        }
    }
}
