//! A part of a network as one program: convolutions and what lies between them, over maps that stay in
//! the layout of the kernels from the first step to the last.
//!
//! Invariant: what a run answers is made of numbers that it has written itself, and of the borders of
//! maps, which are zero from the beginning and are never written. So a buffer serves one run after
//! another, and nothing of one reaches another.

mod draft;
mod slots;
mod spare;
#[cfg(test)]
mod tests;

use std::{fmt, ops::Range, sync::Arc};

pub use self::draft::{Draft, Extent, Value};
use self::spare::{Keep, Spare};
use super::{
    Precision,
    aligned::Aligned,
    bf16::Bf16,
    conv::{Activation, Conv, Run},
    maps::{Layout, Number},
};

/// Steps over the maps of pictures. Where maps are large, each picture goes through many steps before the
/// next one does, so that its maps stay in the cache; where they are small, several go through each step
/// together, so that its weights do. A program serves batches of any size, on any number of threads;
/// [`Draft::finish`] makes it.
pub struct Program {
    /// Numbers of a picture of each input, and of each answer.
    n_inputs: Vec<usize>,
    n_answers: Vec<usize>,
    legs: Vec<Leg>,
    /// Pictures that a buffer has room for.
    n_pictures: usize,
    /// Numbers of a picture in a buffer: maps, and rows.
    n_maps: usize,
    n_rows: usize,
    precision: Precision,
    spare: Spare,
}

/// Steps that so many pictures go through together.
struct Leg {
    n_pictures: usize,
    steps: Vec<Step>,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Program({} steps)", self.legs.iter().map(|leg| leg.steps.len()).sum::<usize>())
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

/// Where a value is in its buffer: from `start` on, if that has room for one picture.
#[derive(Debug, Clone, Copy)]
struct Place {
    start: usize,
    layout: Layout,
}

impl Place {
    /// Where some pictures are.
    fn range(self, pictures: &Pictures) -> Range<usize> {
        let start = self.start * pictures.room;
        let Range { start: first, end } = pictures.within();
        start + first * self.layout.picture()..start + end * self.layout.picture()
    }
}

/// Pictures of a batch that go through a step together, and those that a buffer holds and has room for.
struct Pictures {
    of: Range<usize>,
    first: usize,
    room: usize,
}

impl Pictures {
    /// Which of the buffer's they are.
    fn within(&self) -> Range<usize> {
        self.of.start - self.first..self.of.end - self.first
    }

    /// Where they are among pictures of the batch that lie side by side.
    fn numbers(&self, layout: &Layout) -> Range<usize> {
        let n = layout.n_channels * layout.height * layout.width;
        self.of.start * n..self.of.end * n
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
        match self.precision {
            Precision::F32 => self.run_in::<f32>(n_pictures, inputs, answers),
            Precision::Bf16 => self.run_in::<Bf16>(n_pictures, inputs, answers),
        }
    }

    fn run_in<N: Keep>(&self, n_pictures: usize, inputs: &[&[f32]], answers: &mut [&mut [f32]]) {
        // What no run has touched of a buffer takes no memory.
        let mut scratch = self.spare.take().unwrap_or_else(|| Scratch::<N> {
            maps: Aligned::zeros(self.n_maps * self.n_pictures),
            rows: Aligned::zeros(self.n_rows * self.n_pictures),
        });
        for first in (0..n_pictures).step_by(self.n_pictures) {
            let end = n_pictures.min(first + self.n_pictures);
            for leg in &self.legs {
                for start in (first..end).step_by(leg.n_pictures) {
                    let of = start..end.min(start + leg.n_pictures);
                    let pictures = Pictures { of, first, room: self.n_pictures };
                    leg.steps.iter().for_each(|step| scratch.step(step, &pictures, inputs, answers));
                }
            }
        }
        let n_bytes = size_of::<N>() * self.n_maps + size_of::<f32>() * self.n_rows;
        self.spare.give(n_bytes * self.n_pictures, scratch);
    }
}

impl<N: Number> Scratch<N> {
    fn step(&mut self, step: &Step, pictures: &Pictures, inputs: &[&[f32]], answers: &mut [&mut [f32]]) {
        match step {
            Step::LayOut { input, to } => {
                let input = &inputs[*input][pictures.numbers(&to.layout)];
                to.layout.lay_out(input, &mut self.maps[to.range(pictures)]);
            }
            Step::Maps(work) => work.run(&mut self.maps, pictures),
            Step::Sum { of, factor, to } => {
                let maps = self.maps[of.range(pictures)].chunks_exact(of.layout.picture());
                let rows = self.rows[to.range(pictures)].chunks_exact_mut(to.layout.picture());
                for (maps, row) in maps.zip(rows) {
                    let sums = &mut row[to.layout.at(0, 0)..][..to.layout.n_channels];
                    of.layout.sum(maps, sums);
                    sums.iter_mut().for_each(|sum| *sum *= factor);
                }
            }
            Step::Rows(work) => work.run(&mut self.rows, pictures),
            Step::Gather { room, of, answer } => {
                let answer = &mut answers[*answer][pictures.numbers(&of.layout)];
                match room {
                    Room::Maps => of.layout.gather(&self.maps[of.range(pictures)], answer),
                    Room::Rows => of.layout.gather(&self.rows[of.range(pictures)], answer),
                }
            }
        }
    }
}

impl Work {
    fn run<N: Number>(&self, buffer: &mut [N], pictures: &Pictures) {
        let Self { kind, activation, to } = self;
        let written = to.range(pictures);
        let (before, rest) = buffer.split_at_mut(written.start);
        let (output, after) = rest.split_at_mut(written.len());
        let (before, after) = (&*before, &*after);
        let read = |place: Place| {
            let Range { start, end } = place.range(pictures);
            match start.checked_sub(written.end) {
                Some(start) => &after[start..end - written.end],
                None => &before[start..end],
            }
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
