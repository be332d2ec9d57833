//! Dense convolution as a matrix product that reads its input where it lies (implicit GEMM): blocks of
//! neighbouring pixels by registers of output channels. Bias, a second summand and ReLU are added
//! while a block is still in registers.
//!
//! Invariant: each number is made by the same sums in the same order whatever the batch. Channels that
//! pad a pixel to whole registers are never read.

use super::{
    Form, Precision,
    aligned::{Aligned, same, same_mut},
    maps::{Layout, Number},
};

#[cfg(target_arch = "x86_64")]
mod blocks;
#[cfg(test)]
mod tests;

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

    /// The widest side of its padding.
    pub fn border(&self) -> usize {
        self.padding.iter().flatten().copied().max().unwrap_or(0)
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
    /// For each group of registers of output channels: for each tap and input channel, its weights.
    weights: Aligned,
    /// The biases, padded to whole registers.
    bias: Aligned,
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
    fn of<M: Number>(self) -> Option<Run<'a, M>> {
        let Self { input, input_layout, summand, activation, output, output_layout } = self;
        let summand = match summand {
            Some(summand) => Some(same(summand)?),
            None => None,
        };
        let (input, output) = (same(input)?, same_mut(output)?);
        Some(Run { input, input_layout, summand, activation, output, output_layout })
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
        let mut conv = Self {
            form,
            shape,
            weights: Aligned::zeros(n / shape.n_outputs * shape.n_outputs.next_multiple_of(n_lanes)),
            bias: Aligned::zeros(shape.n_outputs.next_multiple_of(n_lanes)),
        };
        conv.bias[..shape.n_outputs].copy_from_slice(bias);
        for Group { register, n_registers, weights: start } in conv.groups() {
            for lane in 0..n_registers * n_lanes {
                let output = register * n_lanes + lane;
                if output >= shape.n_outputs {
                    continue;
                }
                for tap in 0..n_taps {
                    for input in 0..shape.n_inputs {
                        let k = tap * shape.n_inputs + input;
                        conv.weights[start + k * n_registers * n_lanes + lane] =
                            weights[(output * shape.n_inputs + input) * n_taps + tap];
                    }
                }
            }
        }
        Some(conv)
    }

    /// What the maps that it reads and writes are made of.
    pub fn precision(&self) -> Precision {
        Precision::F32
    }

    /// What it computes.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The layout of its answer for pictures of this height and width; nothing where there is none.
    pub fn answer(&self, picture: [usize; 2], border: usize) -> Option<Layout> {
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
        let Run { input_layout, output_layout, .. } = run;
        assert!(N::PRECISION == self.precision(), "maps of the numbers that it is packed for");
        let fits = self.answer([input_layout.height, input_layout.width], output_layout.border);
        assert!(fits == Some(output_layout), "the layout of the answer");
        assert!(input_layout.n_channels == self.shape.n_inputs, "as many channels as the weights have");
        assert!(input_layout.pixel >= input_layout.n_channels, "room for the channels of a pixel");
        assert!(input_layout.border >= self.shape.border(), "a border as wide as the padding");
        let n_pictures = run.input.len() / input_layout.picture();
        assert!(run.input.len() == n_pictures * input_layout.picture(), "whole pictures come in");
        assert!(run.output.len() == n_pictures * output_layout.picture(), "as many go out");
        assert!(run.summand.is_none_or(|it| it.len() == run.output.len()), "a summand for each number");
        #[cfg(target_arch = "x86_64")]
        if let Some(run) = run.of::<f32>() {
            blocks::run(self, n_pictures, run);
        }
    }

    /// The registers of output channels, in the groups that one block computes.
    fn groups(&self) -> impl Iterator<Item = Group> + use<> {
        let n_lanes = self.form.n_lanes();
        let n_registers = self.shape.n_outputs.div_ceil(n_lanes);
        let per_register = self.shape.kernel[0] * self.shape.kernel[1] * self.shape.n_inputs * n_lanes;
        (0..n_registers).step_by(GROUP).map(move |register| Group {
            register,
            n_registers: GROUP.min(n_registers - register),
            weights: register * per_register,
        })
    }
}

/// Registers of output channels that one block computes at most.
const GROUP: usize = 2;

/// Registers of output channels that are computed together.
struct Group {
    register: usize,
    n_registers: usize,
    /// Where their weights begin.
    weights: usize,
}
