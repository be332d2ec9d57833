//! A part of a network as one program: convolutions and what lies between them, over maps that stay in
//! the layout of the kernels from the first step to the last.
//!
//! Invariant: what a run answers is made of numbers that it has written itself, and of the borders of
//! maps, which are zero from the beginning and are never written. So a buffer serves one run after
//! another, and nothing of one reaches another.

mod draft;
mod slots;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

pub use self::draft::{Draft, Extent, Value};
use super::{
    Precision,
    aligned::Aligned,
    bf16::Bf16,
    conv::{Activation, Conv, Run},
    maps::{Layout, Number},
};

/// Steps over the maps of one picture, which goes through all of them before the next one does, so that
/// its maps stay in the cache. It serves batches of any size, on any number of threads;
/// [`Draft::finish`] makes it.
pub struct Program {
    /// Numbers of a picture of each input, and of each answer.
    n_inputs: Vec<usize>,
    n_answers: Vec<usize>,
    steps: Vec<Step>,
    /// Numbers of a buffer: maps, and rows.
    n_maps: usize,
    n_rows: usize,
    spare: Spare,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Program({} steps)", self.steps.len())
    }
}

/// Buffers that no run uses just now, by the numbers of their maps.
enum Spare {
    F32(Pool<f32>),
    Bf16(Pool<Bf16>),
}

type Pool<N> = Mutex<Vec<Scratch<N>>>;

impl Spare {
    fn of(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32(Pool::default()),
            Precision::Bf16 => Self::Bf16(Pool::default()),
        }
    }
}

/// What one run keeps its values in. Sums over pixels, and what is made of them, are f32 whatever maps
/// are made of.
struct Scratch<N: Number> {
    maps: Aligned<N>,
    rows: Aligned<f32>,
}

/// Which of the two buffers a value is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Room {
    Maps,
    /// One pixel of f32 for each picture.
    Rows,
}

/// Where a value is in its buffer: from `start` on.
#[derive(Debug, Clone, Copy)]
struct Place {
    start: usize,
    layout: Layout,
}

impl Place {
    fn range(self) -> Range<usize> {
        self.start..self.start + self.layout.picture()
    }
}

enum Step {
    LayOut { input: usize, to: Place },
    Maps(Work),
    Sum { of: Place, factor: f32, to: Place },
    Rows(Work),
    Gather { room: Room, of: Place, answer: usize },
}

/// What is done within one buffer.
struct Work {
    kind: Kind,
    activation: Activation,
    to: Place,
}

enum Kind {
    Conv {
        conv: Arc<Conv>,
        of: Place,
        summand: Option<Place>,
    },
    Add {
        one: Place,
        other: Place,
    },
    /// Nothing but the activation.
    Copy {
        of: Place,
    },
}

impl Program {
    /// Runs over the pictures of each input, [n, channels, height, width], to those of each answer.
    ///
    /// # Panics
    /// Where there are not as many slices as the draft has inputs and answers, or they are not of one
    /// number of pictures.
    pub fn run(&self, inputs: &[&[f32]], answers: &mut [&mut [f32]]) {
        let n_pictures = inputs.first().map_or(0, |input| input.len() / self.n_inputs[0]);
        let fits = |(len, n): (usize, &usize)| len == n_pictures * n;
        assert!(inputs.len() == self.n_inputs.len(), "a slice for each input");
        assert!(answers.len() == self.n_answers.len(), "a slice for each answer");
        assert!(inputs.iter().map(|input| input.len()).zip(&self.n_inputs).all(fits), "whole pictures come");
        assert!(answers.iter().map(|it| it.len()).zip(&self.n_answers).all(fits), "as many go");
        match &self.spare {
            Spare::F32(pool) => self.run_in(pool, n_pictures, inputs, answers),
            Spare::Bf16(pool) => self.run_in(pool, n_pictures, inputs, answers),
        }
    }

    fn run_in<N: Number>(
        &self,
        pool: &Pool<N>,
        n_pictures: usize,
        inputs: &[&[f32]],
        answers: &mut [&mut [f32]],
    ) {
        let lock = || pool.lock().unwrap_or_else(PoisonError::into_inner);
        let spare = lock().pop();
        let mut scratch = spare.unwrap_or_else(|| Scratch {
            maps: Aligned::zeros(self.n_maps),
            rows: Aligned::zeros(self.n_rows),
        });
        for picture in 0..n_pictures {
            for step in &self.steps {
                scratch.step(step, picture, inputs, answers);
            }
        }
        lock().push(scratch);
    }
}

impl<N: Number> Scratch<N> {
    fn step(&mut self, step: &Step, picture: usize, inputs: &[&[f32]], answers: &mut [&mut [f32]]) {
        match step {
            Step::LayOut { input, to } => {
                let input = &inputs[*input][numbers(&to.layout, picture)];
                to.layout.lay_out(input, &mut self.maps[to.range()]);
            }
            Step::Maps(work) => work.run(&mut self.maps),
            Step::Sum { of, factor, to } => {
                let sums = &mut self.rows[to.range()][to.layout.at(0, 0)..][..to.layout.n_channels];
                of.layout.sum(&self.maps[of.range()], sums);
                sums.iter_mut().for_each(|sum| *sum *= factor);
            }
            Step::Rows(work) => work.run(&mut self.rows),
            Step::Gather { room, of, answer } => {
                let answer = &mut answers[*answer][numbers(&of.layout, picture)];
                match room {
                    Room::Maps => of.layout.gather(&self.maps[of.range()], answer),
                    Room::Rows => of.layout.gather(&self.rows[of.range()], answer),
                }
            }
        }
    }
}

/// Where a picture is among pictures that lie side by side.
fn numbers(layout: &Layout, picture: usize) -> Range<usize> {
    let n = layout.n_channels * layout.height * layout.width;
    picture * n..(picture + 1) * n
}

impl Work {
    fn run<N: Number>(&self, buffer: &mut [N]) {
        let Self { kind, activation, to } = self;
        let (before, rest) = buffer.split_at_mut(to.start);
        let (output, after) = rest.split_at_mut(to.layout.picture());
        let (before, after) = (&*before, &*after);
        let read = |place: Place| match place.start.checked_sub(to.range().end) {
            Some(start) => &after[start..][..place.layout.picture()],
            None => &before[place.range()],
        };
        match kind {
            Kind::Conv { conv, of, summand } => conv.run(Run {
                input: read(*of),
                input_layout: of.layout,
                summand: summand.map(read),
                activation: *activation,
                output,
                output_layout: to.layout,
            }),
            Kind::Add { one, other } => {
                let pairs = read(*one).iter().zip(read(*other));
                let sums = output.iter_mut().zip(pairs);
                match activation {
                    Activation::Linear => sums.for_each(|(to, (x, y))| *to = N::of(x.wide() + y.wide())),
                    Activation::Relu => sums.for_each(|(to, (x, y))| *to = N::of(relu(x.wide() + y.wide()))),
                }
            }
            Kind::Copy { of } => match activation {
                Activation::Linear => output.copy_from_slice(read(*of)),
                Activation::Relu => {
                    output.iter_mut().zip(read(*of)).for_each(|(to, x)| *to = N::of(relu(x.wide())));
                }
            },
        }
    }
}

/// Not-a-number stays as it is.
fn relu(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}
