//! The convolution against a plain one in double precision.

use proptest::prelude::*;

use super::{
    super::{Precision, noise::noise},
    *,
};

/// A convolution and pictures for it.
#[derive(Debug, Clone)]
struct Case {
    shape: Shape,
    picture: [usize; 2],
    n_pictures: usize,
    weights: Vec<f32>,
    bias: Vec<f32>,
    /// [pictures, inputs, height, width].
    input: Vec<f32>,
    /// [pictures, outputs, height, width] of the answer.
    summand: Option<Vec<f32>>,
    activation: Activation,
}

impl Case {
    fn new(seed: u64, shape: Shape, picture: [usize; 2], n_pictures: usize) -> Option<Self> {
        let [height, width] = shape.extent(picture)?;
        let n_taps = shape.kernel[0] * shape.kernel[1];
        Some(Self {
            shape,
            picture,
            n_pictures,
            weights: noise(seed, shape.n_outputs * shape.n_inputs * n_taps),
            bias: noise(seed + 1, shape.n_outputs),
            input: noise(seed + 2, n_pictures * shape.n_inputs * picture[0] * picture[1]),
            summand: seed
                .is_multiple_of(2)
                .then(|| noise(seed + 3, n_pictures * shape.n_outputs * height * width)),
            activation: if seed.is_multiple_of(3) { Activation::Relu } else { Activation::Linear },
        })
    }

    /// The same with all factors and summands rounded as maps of `precision` are.
    fn rounded(&self, precision: Precision) -> Self {
        let mut case = self.clone();
        if precision == Precision::Bf16 {
            let numbers =
                case.weights.iter_mut().chain(&mut case.input).chain(case.summand.iter_mut().flatten());
            numbers.for_each(|x| *x = Bf16::of(*x).wide());
        }
        case
    }

    /// Runs it by `with`, the input `spare` numbers apart from pixel to pixel beyond its channels.
    fn run<N: Number>(&self, conv: &Conv, spare: usize, with: fn(&Conv, Run<'_, N>)) -> Vec<f32> {
        let [height, width] = self.picture;
        let [above, beside] = self.shape.border();
        let (n_channels, border) = (self.shape.n_inputs, [above + spare % 2, beside + spare / 2 % 2]);
        let from = Layout { n_channels, height, width, border, pixel: n_channels + spare };
        // Every buffer ends at a protected page.
        let mut input = Aligned::<N>::zeros(self.n_pictures * from.picture());
        from.lay_out(&self.input, &mut input);
        // What pads a pixel must not be read.
        for pixel in input.chunks_exact_mut(from.pixel) {
            pixel[n_channels..].fill(N::of(f32::NAN));
        }
        let to = conv.answer(self.picture, [spare % 3, spare % 2]).unwrap();
        let mut output = Aligned::<N>::zeros(self.n_pictures * to.picture());
        let summand = self.summand.as_ref().map(|summand| {
            let mut maps = Aligned::zeros(output.len());
            to.lay_out(summand, &mut maps);
            maps
        });
        let run = Run {
            input: &input,
            input_layout: from,
            summand: summand.as_deref(),
            activation: self.activation,
            output: &mut output,
            output_layout: to,
        };
        with(conv, run);
        let mut answer = vec![f32::NAN; self.n_pictures * to.n_channels * to.height * to.width];
        to.gather(&output, &mut answer);
        // The border is as it was: laying the answer out again gives the same maps, up to the padding.
        let mut again = vec![N::of(0.0); output.len()];
        to.lay_out(&answer, &mut again);
        for (found, expected) in output.chunks_exact(to.pixel).zip(again.chunks_exact(to.pixel)) {
            let bits = |x: &[N]| x[..to.n_channels].iter().map(|x| x.wide().to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(found), bits(expected));
        }
        answer
    }

    /// How far an answer may be from that of [`Case::plain`]: the magnitude of the sums is that of their
    /// number of terms, and an answer in bf16 has 8 bits.
    fn bound(&self, precision: Precision, expected: f64) -> f64 {
        let Shape { n_inputs, kernel, .. } = self.shape;
        let of_sums = 1e-6 * (1 + n_inputs * kernel[0] * kernel[1]) as f64;
        match precision {
            Precision::F32 => of_sums,
            Precision::Bf16 => of_sums + (expected.abs() + of_sums) / 256.0,
        }
    }

    /// Asserts that all forms answer as the definition does, those of this processor and tiles emulated.
    fn check(&self, spare: usize) {
        for form in Form::all() {
            let conv = Conv::pack(form, self.shape, &self.weights, &self.bias).unwrap();
            let found = match conv.precision() {
                Precision::F32 => self.run::<f32>(&conv, spare, Conv::run),
                Precision::Bf16 => self.run::<Bf16>(&conv, spare, Conv::run),
            };
            self.compare(&conv, &found);
        }
        #[cfg(target_arch = "x86_64")]
        if Form::all().contains(&Form(Vectors::Avx512Bf16)) {
            let conv = Conv::pack(Form(Vectors::Amx), self.shape, &self.weights, &self.bias).unwrap();
            self.compare(&conv, &self.run::<Bf16>(&conv, spare, tiles::emulated::run));
        }
    }

    fn compare(&self, conv: &Conv, found: &[f32]) {
        let expected = self.rounded(conv.precision()).plain();
        assert_eq!(found.len(), expected.len());
        for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
            let same = f64::from(*found) == expected || (found.is_nan() && expected.is_nan());
            let near = (f64::from(*found) - expected).abs() <= self.bound(conv.precision(), expected);
            assert!(same || near, "{found} for {expected} at {at} of {conv:?}");
        }
    }

    /// The same by the definition.
    fn plain(&self) -> Vec<f64> {
        let Shape { n_inputs, n_outputs, kernel, strides, padding } = self.shape;
        let [height, width] = self.shape.extent(self.picture).unwrap();
        let mut answer = Vec::new();
        for at in 0..self.n_pictures * n_outputs * height * width {
            let (x, y) = (at % width, at / width % height);
            let (output, picture) = (at / (width * height) % n_outputs, at / (width * height * n_outputs));
            let mut sum =
                f64::from(self.bias[output]) + self.summand.as_ref().map_or(0.0, |s| f64::from(s[at]));
            for tap in 0..kernel[0] * kernel[1] {
                let inside = |at: usize, axis: usize| {
                    at.checked_sub(padding[0][axis]).filter(|at| *at < self.picture[axis])
                };
                let from = [
                    inside(y * strides[0] + tap / kernel[1], 0),
                    inside(x * strides[1] + tap % kernel[1], 1),
                ];
                let [Some(y), Some(x)] = from else { continue };
                for input in 0..n_inputs {
                    let number = self.input
                        [((picture * n_inputs + input) * self.picture[0] + y) * self.picture[1] + x];
                    let weight = self.weights[(output * n_inputs + input) * kernel[0] * kernel[1] + tap];
                    sum += f64::from(number) * f64::from(weight);
                }
            }
            answer.push(if self.activation == Activation::Relu && sum < 0.0 { 0.0 } else { sum });
        }
        answer
    }
}

fn shapes() -> impl Strategy<Value = Shape> {
    let side = |range: std::ops::Range<usize>| [range.clone(), range];
    let padding = [side(0..3), side(0..3)];
    (1usize..20, 1usize..40, side(1..5), side(1..5), padding).prop_map(
        |(n_inputs, n_outputs, kernel, strides, padding)| Shape {
            n_inputs,
            n_outputs,
            kernel,
            strides,
            padding,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn it_answers_as_the_definition_does(
        seed in 0u64..1 << 32, shape in shapes(), picture in [1usize..20, 1usize..20],
        n_pictures in 1usize..4, spare in 0usize..6,
    ) {
        let Some(case) = Case::new(seed, shape, picture, n_pictures) else { return Ok(()) };
        case.check(spare);
    }
}

/// The layers that the issue names, at sizes that make every length of a row's blocks.
#[test]
fn the_usual_layers_at_every_width() {
    #[cfg(target_arch = "x86_64")]
    if !Form::all().contains(&Form(Vectors::Amx)) {
        eprintln!("skipped: tiles are emulated on a processor without AMX");
    }
    for (n_inputs, n_outputs, side, stride, pad) in [
        (32, 48, 3, 1, 1),
        (16, 32, 3, 2, 1),
        (8, 17, 1, 1, 0),
        (8, 32, 1, 2, 0),
        (3, 32, 4, 4, 0),
        (1, 16, 4, 2, 1),
    ] {
        let (kernel, strides, padding) = ([side; 2], [stride; 2], [[pad; 2]; 2]);
        let shape = Shape { n_inputs, n_outputs, kernel, strides, padding };
        for width in 4..31 {
            let case = Case::new(width as u64, shape, [5, width], 1).unwrap();
            case.check(0);
        }
    }
}

#[test]
fn infinities_and_not_a_number_reach_the_pixels_that_see_them() {
    let shape = Shape { n_inputs: 3, n_outputs: 5, kernel: [3, 3], strides: [1, 1], padding: [[1, 1]; 2] };
    for special in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for activation in [Activation::Linear, Activation::Relu] {
            let mut case = Case::new(1, shape, [7, 9], 2).unwrap();
            case.activation = activation;
            case.input[(3 + 1) * 63 + 3 * 9 + 4] = special;
            case.check(2);
        }
    }
}

#[test]
fn weights_that_contradict_the_shape_are_not_packed() {
    let Some(form) = Form::best(Precision::F32) else { return };
    let shape = Shape { n_inputs: 2, n_outputs: 3, kernel: [1, 1], strides: [1, 1], padding: [[0, 0]; 2] };
    assert!(Conv::pack(form, shape, &[0.0; 6], &[0.0; 3]).is_some());
    assert!(Conv::pack(form, shape, &[0.0; 5], &[0.0; 3]).is_none());
    assert!(Conv::pack(form, shape, &[0.0; 6], &[0.0; 2]).is_none());
    assert!(Conv::pack(form, Shape { strides: [0, 1], ..shape }, &[0.0; 6], &[0.0; 3]).is_none());
    assert!(Conv::pack(form, Shape { kernel: [usize::MAX, 2], ..shape }, &[0.0; 6], &[0.0; 3]).is_none());
}
