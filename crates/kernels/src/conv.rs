//! Dense convolution as a matrix product that reads its input where it lies (implicit GEMM): blocks of
//! neighbouring pixels by registers or tiles of output channels. Bias, a second summand and ReLU are added
//! before a block is stored.
//!
//! Invariant: each number is made by the same sums in the same order whatever the batch. Channels that
//! pad a pixel to whole registers are never read. In bf16 the weights, the maps and with them the
//! answers are rounded; sums and biases stay in f32.

use self::packed::{Panels, Source, Tiled};
use super::{
    Form, Precision, Vectors,
    aligned::{Aligned, same, same_mut},
    bf16::Bf16,
    maps::{Layout, Number},
};

#[cfg(target_arch = "x86_64")]
mod blocks;
mod packed;
#[cfg(target_arch = "x86_64")]
mod strips;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod tiles;

/// A convolution, its padding included; heights before widths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    pub n_inputs: usize,
    pub n_outputs: usize,
    pub kernel: [usize; 2],
    pub strides: [usize; 2],
    /// Zeros above and to the left, below and to the right.
    pub padding: [[usize; 2]; 2],
}

impl Shape {
    /// Height and width of the answer to a picture; nothing where the kernel is larger than it.
    pub fn extent(&self, picture: [usize; 2]) -> Option<[usize; 2]> {
        let along = |axis: usize| {
            let padded =
                picture[axis].checked_add(self.padding[0][axis])?.checked_add(self.padding[1][axis])?;
            Some(padded.checked_sub(self.kernel[axis])? / self.strides[axis] + 1)
        };
        Some([along(0)?, along(1)?])
    }

    /// The wider side of its padding along each axis.
    pub fn border(&self) -> [usize; 2] {
        let [before, after] = self.padding;
        [before[0].max(after[0]), before[1].max(after[1])]
    }
}

/// What is done to each sum last. ReLU leaves not-a-number as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    Linear,
    Relu,
}

/// A convolution packed for one form. It serves pictures of any size, on any number of threads.
pub struct Conv {
    form: Form,
    shape: Shape,
    weights: Weights,
    /// The biases, padded to whole registers.
    bias: Aligned,
}

/// Weights as the loops of a form read them.
enum Weights {
    Singles(Panels<f32>),
    Pairs(Panels<Bf16>),
    Tiles(Tiled),
}

impl std::fmt::Debug for Conv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Conv({:?}, {})", self.shape, self.form)
    }
}

/// What a convolution reads and writes in one run: pictures in the layouts beside them.
#[derive(Debug)]
pub struct Run<'a, N> {
    pub input: &'a [N],
    pub input_layout: Layout,
    /// What is added to the answer before the activation, laid out as the answer is.
    pub summand: Option<&'a [N]>,
    pub activation: Activation,
    /// Zero in the border before the run, and after it.
    pub output: &'a mut [N],
    pub output_layout: Layout,
}

impl<'a, N: Number> Run<'a, N> {
    /// The same run by the name that the loops have for its numbers.
    ///
    /// # Panics
    /// Where they are others.
    fn of<M: Number>(self) -> Run<'a, M> {
        let Self { input, input_layout, summand, activation, output, output_layout } = self;
        let (input, summand, output) = (same(input), summand.map(same), same_mut(output));
        Run { input, input_layout, summand, activation, output, output_layout }
    }
}

impl Conv {
    /// Packs weights [outputs, inputs, height, width] and biases [outputs], or answers nothing where
    /// their numbers contradict the shape.
    pub fn pack(form: Form, shape: Shape, weights: &[f32], bias: &[f32]) -> Option<Self> {
        let [height, width] = shape.kernel;
        let n_taps = height.checked_mul(width)?;
        let n = [shape.n_inputs, shape.n_outputs].into_iter().try_fold(n_taps, usize::checked_mul)?;
        if n == 0 || shape.strides.contains(&0) || weights.len() != n || bias.len() != shape.n_outputs {
            return None;
        }
        let n_lanes = form.n_lanes();
        let source = Source { shape: &shape, weights };
        let weights = match form.0 {
            #[cfg(target_arch = "x86_64")]
            Vectors::Amx => Weights::Tiles(Tiled::pack(source)),
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx512Bf16 => Weights::Pairs(Panels::pack(source, n_lanes, 2)),
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx512 | Vectors::Avx2 => Weights::Singles(Panels::pack(source, n_lanes, 1)),
        };
        let mut padded = Aligned::zeros(shape.n_outputs.next_multiple_of(n_lanes));
        padded[..shape.n_outputs].copy_from_slice(bias);
        Some(Self { form, shape, weights, bias: padded })
    }

    /// The form that it is packed for.
    pub fn form(&self) -> Form {
        self.form
    }

    /// What the maps that it reads and writes are made of.
    pub fn precision(&self) -> Precision {
        match self.weights {
            Weights::Singles(_) => Precision::F32,
            Weights::Pairs(_) | Weights::Tiles(_) => Precision::Bf16,
        }
    }

    /// What it computes.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The layout of its answer for pictures of this height and width; nothing where there is none.
    pub fn answer(&self, picture: [usize; 2], border: [usize; 2]) -> Option<Layout> {
        let [height, width] = self.shape.extent(picture)?;
        let n_channels = self.shape.n_outputs;
        Some(Layout {
            n_channels,
            height,
            width,
            border,
            pixel: n_channels.next_multiple_of(self.form.n_lanes()),
        })
    }

    /// Runs over all pictures of `input`.
    ///
    /// # Panics
    /// Where the numbers are not of [`Conv::precision`], layouts and slices contradict each other or the
    /// shape, or the border of the input is narrower than the padding.
    pub fn run<N: Number>(&self, run: Run<'_, N>) {
        let n_pictures = self.pictures(&run);
        #[cfg(target_arch = "x86_64")]
        match &self.weights {
            Weights::Singles(panels) => {
                let loops = if self.form.0 == Vectors::Avx2 { &blocks::AVX2 } else { &blocks::AVX512 };
                blocks::run(self, loops, panels, n_pictures, run.of());
            }
            Weights::Pairs(panels) => {
                blocks::run(self, &blocks::AVX512_BF16, panels, n_pictures, run.of());
            }
            Weights::Tiles(tiled) => tiles::run(self, tiled, n_pictures, run.of()),
        }
    }

    /// How many pictures a run has.
    ///
    /// # Panics
    /// Where [`Conv::run`] does.
    fn pictures<N: Number>(&self, run: &Run<'_, N>) -> usize {
        let Run { input_layout, output_layout, .. } = *run;
        assert!(N::PRECISION == self.precision(), "maps of the numbers that it is packed for");
        let fits = self.answer([input_layout.height, input_layout.width], output_layout.border);
        assert!(fits == Some(output_layout), "the layout of the answer");
        assert!(input_layout.n_channels == self.shape.n_inputs, "as many channels as the weights have");
        assert!(input_layout.pixel >= input_layout.n_channels, "room for the channels of a pixel");
        let is_wide = input_layout.border.iter().zip(self.shape.border()).all(|(has, needs)| *has >= needs);
        assert!(is_wide, "a border as wide as the padding");
        let n_pictures = run.input.len() / input_layout.picture();
        assert!(run.input.len() == n_pictures * input_layout.picture(), "whole pictures come in");
        assert!(run.output.len() == n_pictures * output_layout.picture(), "as many go out");
        assert!(run.summand.is_none_or(|it| it.len() == run.output.len()), "a summand for each number");
        n_pictures
    }
}
