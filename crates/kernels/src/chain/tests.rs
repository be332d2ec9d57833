//! Programs against their steps, each a program of its own.

use std::thread;

use proptest::prelude::*;

use super::{
    slots::{BOUNDS, Bounds},
    *,
};
use crate::{Form, conv::Shape, noise::noise};

/// What is asked of a value, or of two.
#[derive(Debug, Clone)]
enum Asked {
    Conv { n_outputs: usize, kernel: [usize; 2], strides: [usize; 2], padding: usize },
    Add,
    Relu,
    Sum,
}

/// An operation, and which of the values before it are read: the first two that fit, from a place on.
type Operation = (Asked, usize);

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let side = |most: usize| [1..=most, 1..=most];
    let conv = (1usize..20, side(3), side(2), 0usize..2);
    let asked = prop_oneof![
        4 => conv.prop_map(|(n_outputs, kernel, strides, padding)| {
            Asked::Conv { n_outputs, kernel, strides, padding }
        }),
        4 => Just(Asked::Add),
        3 => Just(Asked::Relu),
        1 => Just(Asked::Sum),
    ];
    prop::collection::vec((asked, 0usize..8), 1..12)
}

/// A value with its pictures, as the steps alone make them.
struct Known {
    value: Value,
    extent: Extent,
    room: Room,
    pictures: Vec<f32>,
}

/// A program, and what its steps alone answer.
struct Case {
    draft: Draft,
    form: Form,
    n_pictures: usize,
    known: Vec<Known>,
}

impl Case {
    fn new(form: Form, extents: &[Extent], n_pictures: usize) -> Self {
        let precision = conv(form, extents[0], 1, [1, 1], [1, 1], 0).precision();
        let mut case = Self { draft: Draft::new(precision), form, n_pictures, known: Vec::new() };
        for (seed, extent) in extents.iter().enumerate() {
            let pictures = noise(seed as u64, n_pictures * extent.n_numbers());
            let value = case.draft.input(*extent).unwrap();
            case.known.push(Known { value, extent: *extent, room: Room::Maps, pictures });
        }
        case
    }

    /// Asks for one operation, where there is a value that it can be done with.
    fn ask(&mut self, (asked, from): &Operation) {
        let n = self.known.len();
        let turned = (0..n).map(|at| (from + at) % n);
        match asked {
            Asked::Conv { n_outputs, kernel, strides, padding } => {
                // Rows take a convolution that is packed for f32 only, as maps do here or not.
                let fits = |at: &usize| {
                    let Known { extent, room, .. } = &self.known[*at];
                    let conv = conv(self.form, *extent, *n_outputs, *kernel, *strides, *padding);
                    let fits = *room == Room::Maps || conv.precision() == Precision::F32;
                    fits && conv.shape().extent([extent.height, extent.width]).is_some()
                };
                let Some(of) = turned.into_iter().find(fits) else { return };
                let conv = conv(self.form, self.known[of].extent, *n_outputs, *kernel, *strides, *padding);
                self.push(&[of], |draft, of| draft.conv(Arc::clone(&conv), of[0]));
            }
            Asked::Add => {
                let of = |at: usize| (self.known[at].extent, self.known[at].room);
                let one = from % n;
                let other = turned.into_iter().rfind(|at| of(*at) == of(one)).unwrap_or(one);
                self.push(&[one, other], |draft, of| draft.add(of[0], of[1]));
            }
            Asked::Relu => self.push(&[from % n], |draft, of| Some(draft.relu(of[0]))),
            Asked::Sum => {
                let Some(of) = turned.into_iter().find(|at| self.known[*at].room == Room::Maps) else {
                    return;
                };
                self.push(&[of], |draft, of| draft.sum(of[0], 0.25));
            }
        }
    }

    /// Drafts a step, and runs it alone.
    fn push(&mut self, of: &[usize], act: impl Fn(&mut Draft, &[Value]) -> Option<Value>) {
        let values: Vec<Value> = of.iter().map(|at| self.known[*at].value).collect();
        let value = act(&mut self.draft, &values).unwrap();
        let (extent, room) = (self.draft.extent(value), self.draft.drafted[value.0].room);
        let mut alone = Draft::new(self.draft.precision);
        // What is in rows becomes one pixel of maps, in the same numbers where maps are f32.
        let inputs: Vec<Value> = of.iter().map(|at| alone.input(self.known[*at].extent).unwrap()).collect();
        let answer = act(&mut alone, &inputs).unwrap();
        alone.answer(answer);
        let alone = alone.finish().unwrap();
        let inputs: Vec<&[f32]> = of.iter().map(|at| &self.known[*at].pictures[..]).collect();
        let mut pictures = vec![f32::NAN; self.n_pictures * extent.n_numbers()];
        alone.run(&inputs, &mut [&mut pictures]);
        self.known.push(Known { value, extent, room, pictures });
    }

    /// Makes the program, with the last value and every `every`th one behind the inputs as answers.
    fn finish(
        mut self,
        n_inputs: usize,
        every: usize,
        bounds: Bounds,
    ) -> (Program, Vec<Vec<f32>>, Vec<Vec<f32>>) {
        let mut expected = Vec::new();
        for (at, known) in self.known.iter().enumerate().skip(n_inputs) {
            if at + 1 == self.known.len() || at % every == 0 {
                self.draft.answer(known.value);
                expected.push(known.pictures.clone());
            }
        }
        let inputs = self.known[..n_inputs].iter().map(|known| known.pictures.clone()).collect();
        (self.draft.finish_within(bounds).unwrap(), inputs, expected)
    }
}

fn conv(
    form: Form,
    extent: Extent,
    n_outputs: usize,
    kernel: [usize; 2],
    strides: [usize; 2],
    padding: usize,
) -> Arc<Conv> {
    let Extent { n_channels: n_inputs, .. } = extent;
    let shape = Shape { n_inputs, n_outputs, kernel, strides, padding: [[padding; 2]; 2] };
    let n = n_outputs * n_inputs * kernel[0] * kernel[1];
    let weights: Vec<f32> = noise(n as u64, n).iter().map(|x| x / (n / n_outputs) as f32).collect();
    Arc::new(Conv::pack(form, shape, &weights, &noise(n as u64 + 1, n_outputs)).unwrap())
}

fn answered(program: &Program, inputs: &[Vec<f32>], expected: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let mut answers: Vec<Vec<f32>> = expected.iter().map(|it| vec![f32::NAN; it.len()]).collect();
    let inputs: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
    let mut slices: Vec<&mut [f32]> = answers.iter_mut().map(Vec::as_mut_slice).collect();
    program.run(&inputs, &mut slices);
    answers
}

/// Holds answers to those of the steps: to the bit in f32; in bf16 a value within a step is not
/// rounded, and so differs by what rounding does.
fn agree(precision: Precision, found: &[Vec<f32>], expected: &[Vec<f32>]) -> Result<(), TestCaseError> {
    for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
        let near = match precision {
            Precision::F32 => found == expected,
            Precision::Bf16 => (found - expected).abs() <= 0.1 * (1.0 + expected.abs()),
        };
        prop_assert!(near, "{} for {}", found, expected);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn a_program_answers_what_its_steps_alone_answer(
        operations in operations(), sides in [1usize..20, 1usize..8, 1usize..8],
        n_inputs in 1usize..3, n_pictures in 1usize..12, every in 1usize..5,
        step in 1usize..20_000, buffer in 1usize..100_000, pictures in 1usize..9,
    ) {
        let [n_channels, height, width] = sides;
        for form in Form::all() {
            let extents = vec![Extent { n_channels, height, width }; n_inputs];
            let mut case = Case::new(form, &extents, n_pictures);
            operations.iter().for_each(|operation| case.ask(operation));
            if case.known.len() == n_inputs {
                continue;
            }
            let precision = case.draft.precision;
            let bounds = Bounds { step, buffer, pictures, ..BOUNDS };
            let (program, inputs, expected) = case.finish(n_inputs, every, bounds);
            let first = answered(&program, &inputs, &expected);
            agree(precision, &first, &expected)?;
            // What another batch leaves behind changes nothing.
            let poison: Vec<Vec<f32>> = inputs.iter().map(|input| vec![f32::NAN; input.len()]).collect();
            answered(&program, &poison, &expected);
            prop_assert_eq!(answered(&program, &inputs, &expected), first, "{}", form);
        }
    }
}

/// Two residual blocks and a mean.
fn residual(form: Form) -> (Program, Vec<Vec<f32>>, Vec<Vec<f32>>) {
    let mut case = Case::new(form, &[Extent { n_channels: 16, height: 9, width: 7 }], 3);
    for _ in 0..2 {
        let same = Asked::Conv { n_outputs: 16, kernel: [3, 3], strides: [1, 1], padding: 1 };
        let last = case.known.len() - 1;
        for operation in [(same.clone(), last), (Asked::Relu, last + 1), (same, last + 2)] {
            case.ask(&operation);
        }
        case.push(&[last + 3, last], |draft, of| draft.add(of[0], of[1]));
        case.ask(&(Asked::Relu, last + 4));
    }
    case.ask(&(Asked::Sum, case.known.len() - 1));
    case.finish(1, usize::MAX, BOUNDS)
}

#[test]
fn additions_and_relus_are_done_within_convolutions_and_maps_share_slots() {
    for form in Form::all() {
        let (program, ..) = residual(form);
        let names = program.legs.iter().flat_map(|leg| &leg.steps).map(|step| match step {
            Step::LayOut { .. } => 'l',
            Step::Maps(Work { kind: Kind::Conv { summand, .. }, activation: Activation::Relu, .. }) => {
                if summand.is_some() {
                    'S'
                } else {
                    'C'
                }
            }
            Step::Sum { .. } => 's',
            Step::Gather { .. } => 'g',
            Step::Maps(_) | Step::Rows(_) => '?',
        });
        assert_eq!(names.collect::<String>(), "lCSCSsg", "{form}");
        let of_one = 11 * 9 * 16_usize.next_multiple_of(form.n_lanes());
        assert!(program.n_maps <= 3 * (of_one + 32), "{form}: three slots are enough");
    }
}

#[test]
fn more_pictures_go_together_where_maps_are_smaller() {
    let sides = |bytes: usize| Bounds { step: bytes, buffer: 1 << 20, ..BOUNDS };
    for form in Form::all() {
        let n_together = |bytes: usize| {
            let mut case = Case::new(form, &[Extent { n_channels: 16, height: 16, width: 16 }], 1);
            let halved = Asked::Conv { n_outputs: 16, kernel: [3, 3], strides: [2, 2], padding: 1 };
            (0..3).for_each(|last| case.ask(&(halved.clone(), last)));
            let (program, ..) = case.finish(1, usize::MAX, sides(bytes));
            program.legs.iter().map(|leg| leg.n_pictures).collect::<Vec<_>>()
        };
        assert_eq!(n_together(1 << 20), [8], "{form}: all steps together");
        assert_eq!(n_together(1), [1], "{form}: each picture by itself");
        let falling = n_together(40_000);
        assert!(falling.len() > 1 && falling.is_sorted(), "{form}: {falling:?}");
    }
}

#[test]
fn two_threads_that_run_one_program_at_once_do_not_disturb_each_other() {
    for form in Form::all() {
        let (program, inputs, expected) = residual(form);
        let other: Vec<Vec<f32>> = inputs.iter().map(|input| input.iter().map(|x| -x).collect()).collect();
        let alone = [answered(&program, &inputs, &expected), answered(&program, &other, &expected)];
        assert_ne!(alone[0], alone[1]);
        thread::scope(|scope| {
            for (inputs, alone) in [(&inputs, &alone[0]), (&other, &alone[1])] {
                let (program, expected) = (&program, &expected);
                scope.spawn(move || {
                    for _ in 0..200 {
                        assert_eq!(answered(program, inputs, expected), *alone, "{form}");
                    }
                });
            }
        });
    }
}

#[test]
fn what_does_not_fit_is_refused_when_it_is_drafted() {
    let Some(form) = Form::all().first().copied() else { return };
    let extent = Extent { n_channels: 4, height: 2, width: 2 };
    let three_wide = conv(form, extent, 8, [3, 3], [1, 1], 0);
    let other = conv(form, Extent { n_channels: 3, ..extent }, 8, [1, 1], [1, 1], 0);
    let mut draft = Draft::new(three_wide.precision());
    let input = draft.input(extent).unwrap();
    assert!(draft.conv(three_wide, input).is_none(), "the kernel is larger than the picture");
    assert!(draft.conv(other, input).is_none(), "the channels are others");
    assert!(draft.input(Extent { height: 0, ..extent }).is_none(), "there is no pixel");
    let smaller = draft.input(Extent { width: 1, ..extent }).unwrap();
    assert!(draft.add(input, smaller).is_none(), "the widths differ");
    let sums = draft.sum(input, 1.0).unwrap();
    assert!(draft.sum(sums, 1.0).is_none(), "sums have no pixels left");
}

/// A network of one dimension has no rows of pixels above and below: its padding is along its width only.
#[test]
fn a_border_is_as_wide_as_the_padding_along_its_own_axis() {
    for form in Form::all() {
        let draft = || {
            let shape = Shape {
                n_inputs: 1,
                n_outputs: 8,
                kernel: [1, 501],
                strides: [1, 1],
                padding: [[0, 250], [0, 250]],
            };
            let conv = Arc::new(Conv::pack(form, shape, &noise(1, 8 * 501), &noise(2, 8)).unwrap());
            let mut draft = Draft::new(conv.precision());
            let input = draft.input(Extent { n_channels: 1, height: 1, width: 4000 }).unwrap();
            let answer = draft.conv(conv, input).unwrap();
            draft.answer(answer);
            draft
        };
        let program = draft().finish().unwrap();
        let of_answer = 4000 * 8_usize.next_multiple_of(form.n_lanes());
        assert!(program.n_maps <= 4500 + of_answer + 2 * 32, "{form}: {} numbers", program.n_maps);
        let narrow = Bounds { numbers: program.n_maps - 1, ..BOUNDS };
        assert!(draft().finish_within(narrow).is_none(), "{form}: more than the buffer may have");
    }
}
