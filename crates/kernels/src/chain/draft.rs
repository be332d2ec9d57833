//! A program in the making: which value is made of which, before anything has a place.
//!
//! Invariant: a value is made before it is read, of values of the extents and numbers that its maker
//! takes; what contradicts that is refused when it is drafted.

use std::sync::Arc;

use super::{
    Program, Room,
    slots::{BOUNDS, Bounds, placed},
};
use crate::{
    Precision,
    conv::{Activation, Conv},
};

/// The sides of the maps of one picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Extent {
    pub n_channels: usize,
    pub height: usize,
    pub width: usize,
}

impl Extent {
    /// Numbers of one picture.
    pub fn n_numbers(self) -> usize {
        self.n_channels * self.height * self.width
    }
}

/// A value of the draft that it came of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(pub(super) usize);

/// A [`Program`] in the making. Each method that makes a value answers it, or nothing where the values
/// that it is made of do not fit.
pub struct Draft {
    pub(super) precision: Precision,
    pub(super) drafted: Vec<Drafted>,
    pub(super) inputs: Vec<Value>,
    pub(super) answers: Vec<Value>,
}

/// A value and what makes it.
pub(super) struct Drafted {
    pub(super) extent: Extent,
    pub(super) room: Room,
    act: Act,
}

enum Act {
    Input,
    Conv { conv: Arc<Conv>, of: Value },
    Add { one: Value, other: Value },
    Relu { of: Value },
    Sum { of: Value, factor: f32 },
}

/// One step, with what was drafted behind a convolution or an addition and can be done with it.
pub(super) struct Line {
    pub(super) act: Fused,
    pub(super) activation: Activation,
    pub(super) makes: Value,
}

pub(super) enum Fused {
    LayOut { input: usize },
    Conv { conv: Arc<Conv>, of: Value, summand: Option<Value> },
    Add { one: Value, other: Value },
    Copy { of: Value },
    Sum { of: Value, factor: f32 },
}

impl Line {
    pub(super) fn reads(&self) -> impl Iterator<Item = Value> + use<> {
        let read = match self.act {
            Fused::LayOut { .. } => [None, None],
            Fused::Conv { of, summand, .. } => [Some(of), summand],
            Fused::Add { one, other } => [Some(one), Some(other)],
            Fused::Copy { of } | Fused::Sum { of, .. } => [Some(of), None],
        };
        read.into_iter().flatten()
    }
}

impl Draft {
    /// Begins a program whose maps are of this precision.
    pub fn new(precision: Precision) -> Self {
        Self { precision, drafted: Vec::new(), inputs: Vec::new(), answers: Vec::new() }
    }

    /// Adds an input: pictures, [n, channels, height, width].
    pub fn input(&mut self, extent: Extent) -> Option<Value> {
        if extent.n_numbers() == 0 {
            return None;
        }
        let value = self.push(extent, Room::Maps, Act::Input);
        self.inputs.push(value);
        Some(value)
    }

    /// Convolves maps, or sums over pixels with a convolution that is packed for f32.
    pub fn conv(&mut self, conv: Arc<Conv>, of: Value) -> Option<Value> {
        let Drafted { extent, room, .. } = self.drafted[of.0];
        let shape = conv.shape();
        let [height, width] = shape.extent([extent.height, extent.width])?;
        let fits = shape.n_inputs == extent.n_channels && conv.precision() == self.precision_in(room);
        let extent = Extent { n_channels: shape.n_outputs, height, width };
        fits.then(|| self.push(extent, room, Act::Conv { conv, of }))
    }

    /// Adds values of one extent.
    pub fn add(&mut self, one: Value, other: Value) -> Option<Value> {
        let Drafted { extent, room, .. } = self.drafted[one.0];
        let fits = (extent, room) == (self.drafted[other.0].extent, self.drafted[other.0].room);
        fits.then(|| self.push(extent, room, Act::Add { one, other }))
    }

    /// Puts zero in the place of what is below it.
    pub fn relu(&mut self, of: Value) -> Value {
        let Drafted { extent, room, .. } = self.drafted[of.0];
        self.push(extent, room, Act::Relu { of })
    }

    /// Sums each channel of maps over its pixels, times a factor. The answer is one pixel of f32,
    /// whatever the precision of maps.
    pub fn sum(&mut self, of: Value, factor: f32) -> Option<Value> {
        let Drafted { extent, room, .. } = self.drafted[of.0];
        let extent = Extent { height: 1, width: 1, ..extent };
        (room == Room::Maps).then(|| self.push(extent, Room::Rows, Act::Sum { of, factor }))
    }

    /// Makes a value an answer of the program, behind those that already are.
    pub fn answer(&mut self, value: Value) {
        self.answers.push(value);
    }

    /// The sides of a value.
    pub fn extent(&self, value: Value) -> Extent {
        self.drafted[value.0].extent
    }

    /// Gives every value its place; nothing where there is no input, two convolutions that are added
    /// have different layouts, or the buffer of a picture would be too large.
    pub fn finish(self) -> Option<Program> {
        self.finish_within(BOUNDS)
    }

    pub(super) fn finish_within(self, bounds: Bounds) -> Option<Program> {
        let lines = self.lines();
        if self.inputs.is_empty() {
            return None;
        }
        placed(&self, lines, bounds)
    }

    fn push(&mut self, extent: Extent, room: Room, act: Act) -> Value {
        self.drafted.push(Drafted { extent, room, act });
        Value(self.drafted.len() - 1)
    }

    fn precision_in(&self, room: Room) -> Precision {
        match room {
            Room::Maps => self.precision,
            Room::Rows => Precision::F32,
        }
    }

    /// The steps in their order: additions and ReLUs are done with what makes the only value that they
    /// are for, and an input is laid out where it is first read.
    fn lines(&self) -> Vec<Line> {
        let n_reads = self.n_reads();
        let mut fused: Vec<Option<Line>> = Vec::new();
        // The line that makes a value which nothing but one other act reads.
        let maker = |fused: &[Option<Line>], value: Value| {
            let made = |line: &Option<Line>| line.as_ref().is_some_and(|line| line.makes == value);
            fused.iter().rposition(made).filter(|_| n_reads[value.0] == 1)
        };
        for (at, Drafted { act, .. }) in self.drafted.iter().enumerate() {
            let line = |act| Some(Line { act, activation: Activation::Linear, makes: Value(at) });
            match act {
                Act::Input => {}
                Act::Conv { conv, of } => {
                    fused.push(line(Fused::Conv { conv: Arc::clone(conv), of: *of, summand: None }));
                }
                Act::Sum { of, factor } => fused.push(line(Fused::Sum { of: *of, factor: *factor })),
                Act::Relu { of } => {
                    let last = maker(&fused, *of).and_then(|last| fused[last].as_mut());
                    match last.filter(|last| last.takes_activation()) {
                        Some(last) => (last.activation, last.makes) = (Activation::Relu, Value(at)),
                        None => fused.extend(
                            line(Fused::Copy { of: *of })
                                .map(|copy| Some(Line { activation: Activation::Relu, ..copy })),
                        ),
                    }
                }
                Act::Add { one, other } => {
                    // The later of the two convolutions waits for its summand.
                    let takes = |value: Value| {
                        let found = maker(&fused, value)?;
                        fused[found].as_ref().is_some_and(Line::takes_summand).then_some(found)
                    };
                    let last =
                        [(takes(*one), *other), (takes(*other), *one)].into_iter().max_by_key(|it| it.0);
                    let taken = last.and_then(|(found, summand)| {
                        let Line { act: Fused::Conv { conv, of, .. }, .. } = fused[found?].take()? else {
                            return None;
                        };
                        Some(Fused::Conv { conv, of, summand: Some(summand) })
                    });
                    fused.push(line(taken.unwrap_or(Fused::Add { one: *one, other: *other })));
                }
            }
        }
        self.with_inputs(fused.into_iter().flatten())
    }

    fn with_inputs(&self, fused: impl Iterator<Item = Line>) -> Vec<Line> {
        let mut lines: Vec<Line> = Vec::new();
        for line in fused {
            for read in line.reads() {
                let input = self.inputs.iter().position(|input| *input == read);
                if let Some(input) = input.filter(|_| lines.iter().all(|line| line.makes != read)) {
                    let activation = Activation::Linear;
                    lines.push(Line { act: Fused::LayOut { input }, activation, makes: read });
                }
            }
            lines.push(line);
        }
        lines
    }

    /// How often each value is read, as an answer too.
    fn n_reads(&self) -> Vec<usize> {
        let mut n_reads = vec![0; self.drafted.len()];
        let read = self.drafted.iter().flat_map(|drafted| match drafted.act {
            Act::Input => [None, None],
            Act::Conv { of, .. } | Act::Relu { of } | Act::Sum { of, .. } => [Some(of), None],
            Act::Add { one, other } => [Some(one), Some(other)],
        });
        read.flatten().chain(self.answers.iter().copied()).for_each(|value| n_reads[value.0] += 1);
        n_reads
    }
}

impl Line {
    fn takes_activation(&self) -> bool {
        matches!(self.act, Fused::Conv { .. } | Fused::Add { .. }) && self.activation == Activation::Linear
    }

    fn takes_summand(&self) -> bool {
        matches!(self.act, Fused::Conv { summand: None, .. }) && self.activation == Activation::Linear
    }
}
