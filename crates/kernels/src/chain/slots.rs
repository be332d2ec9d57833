//! Places for the values of a program: layouts, and slots of one buffer that values share.
//!
//! Invariant: a slot has one layout for good, so that its border is never written; and two values share
//! one only where the last step that reads the first is before the step that makes the second.

use std::collections::HashMap;

use super::{
    Kind, Leg, Place, Program, Room, Step, Work,
    draft::{Draft, Extent, Fused, Line, Value},
    spare::Spare,
};
use crate::{Precision, bf16::Bf16, maps::Layout};

/// Slots begin at a cache line, whatever their numbers are.
const LINE: usize = 32;

/// How many pictures go through a step together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Bytes of maps that one step should read and write: a part of a core's own cache, so that weights
    /// have room beside them.
    pub(super) step: usize,
    /// Bytes of maps in a buffer.
    pub(super) buffer: usize,
    pub(super) pictures: usize,
    /// Numbers of one picture in all slots of a buffer, borders included.
    pub(super) numbers: usize,
}

pub(super) const BOUNDS: Bounds = Bounds { step: 512 << 10, buffer: 4 << 20, pictures: 8, numbers: 1 << 28 };

/// Gives the values of a draft their places. Returns `None` where one picture would need more than
/// `bounds.numbers`: a padding of a few bytes in the file sizes the border.
pub(super) fn placed(draft: &Draft, lines: Vec<Line>, bounds: Bounds) -> Option<Program> {
    let layouts = layouts(draft, &lines)?;
    let mut last_read = HashMap::new();
    for (at, line) in lines.iter().enumerate() {
        line.reads().chain([line.makes]).for_each(|value| _ = last_read.insert(value, at));
    }
    let mut slots = Slots { ends: [0, 0], free: Vec::new(), taken: HashMap::new() };
    let mut steps = Vec::new();
    for (at, line) in lines.into_iter().enumerate() {
        let (reads, makes): (Vec<Value>, Value) = (line.reads().collect(), line.makes);
        let room = draft.drafted[makes.0].room;
        slots.take(makes, room, layouts[makes.0]?, bounds.numbers)?;
        steps.push(slots.step(line, room)?);
        for (answer, _) in draft.answers.iter().enumerate().filter(|(_, value)| **value == makes) {
            steps.push(Step::Gather { room, of: slots.place(makes)?, answer });
        }
        reads.into_iter().chain([makes]).filter(|value| last_read[value] == at).for_each(|it| slots.free(it));
    }
    let n_numbers = |value: &Value| draft.extent(*value).n_numbers();
    let number = match draft.precision {
        Precision::F32 => size_of::<f32>(),
        Precision::Bf16 => size_of::<Bf16>(),
    };
    let n_pictures = together(bounds.buffer, number * slots.ends[0], bounds.pictures);
    let legs = legs(steps, |step| together(bounds.step, number * step.n_numbers(), n_pictures));
    Some(Program {
        n_inputs: draft.inputs.iter().map(n_numbers).collect(),
        n_answers: draft.answers.iter().map(n_numbers).collect(),
        legs,
        n_pictures,
        n_maps: slots.ends[0],
        n_rows: slots.ends[1],
        precision: draft.precision,
        spare: Spare::new(),
    })
}

/// So many pictures, at most `most`, that what each takes fits into `bytes`.
fn together(bytes: usize, each: usize, most: usize) -> usize {
    (bytes / each.max(1)).clamp(1, most)
}

/// Steps in their order, as legs of those that equally many pictures go through together.
fn legs(steps: Vec<Step>, together: impl Fn(&Step) -> usize) -> Vec<Leg> {
    let mut legs: Vec<Leg> = Vec::new();
    for step in steps {
        // A power of two, so that neighbours are more often alike.
        let n_pictures = 1 << together(&step).ilog2();
        match legs.last_mut().filter(|leg| leg.n_pictures == n_pictures) {
            Some(leg) => leg.steps.push(step),
            None => legs.push(Leg { n_pictures, steps: vec![step] }),
        }
    }
    legs
}

impl Step {
    /// Numbers of maps of one picture that it reads and writes.
    fn n_numbers(&self) -> usize {
        let n = |place: &Place| place.layout.picture();
        match self {
            Self::LayOut { to, .. } => n(to),
            Self::Maps(Work { kind, to, .. }) | Self::Rows(Work { kind, to, .. }) => {
                n(to)
                    + match kind {
                        Kind::Conv { of, summand, .. } => n(of) + summand.as_ref().map_or(0, n),
                        Kind::Add { one, other } => n(one) + n(other),
                        Kind::Copy { of } => n(of),
                    }
            }
            Self::Sum { of, .. } | Self::Gather { of, .. } => n(of),
        }
    }
}

/// The layout of each value that a line makes. Values that are added to each other share one: its
/// border is, along each axis, the widest that a convolution of any of them asks for.
fn layouts(draft: &Draft, lines: &[Line]) -> Option<Vec<Option<Layout>>> {
    let mut alike = Alike((0..draft.drafted.len()).collect());
    for line in lines {
        let like = match line.act {
            Fused::Conv { summand, .. } => [summand, None],
            Fused::Add { one, other } => [Some(one), Some(other)],
            Fused::Copy { of } => [Some(of), None],
            Fused::LayOut { .. } | Fused::Sum { .. } => [None, None],
        };
        like.into_iter().flatten().for_each(|value| alike.join(value.0, line.makes.0));
    }
    let mut border = vec![[0; 2]; draft.drafted.len()];
    for line in lines {
        if let Fused::Conv { conv, of, .. } = &line.act {
            let of = alike.first(of.0);
            let wanted = conv.shape().border();
            border[of] = [0, 1].map(|axis| wanted[axis].max(border[of][axis]));
        }
    }
    let mut pixel: Vec<Option<usize>> = vec![None; draft.drafted.len()];
    for line in lines {
        if let Fused::Conv { conv, of, .. } = &line.act {
            let Extent { height, width, .. } = draft.extent(*of);
            let answer = conv.answer([height, width], [0, 0])?;
            let known = pixel[alike.first(line.makes.0)].get_or_insert(answer.pixel);
            if *known != answer.pixel {
                return None;
            }
        }
    }
    let layout = |value: usize| {
        let Extent { n_channels, height, width } = draft.drafted[value].extent;
        let first = alike.first(value);
        let pixel = pixel[first].unwrap_or(n_channels);
        Layout { n_channels, height, width, border: border[first], pixel }
    };
    let made = |value: usize| lines.iter().any(|line| line.makes.0 == value).then(|| layout(value));
    Some((0..draft.drafted.len()).map(made).collect())
}

/// Sets of values: for each one that was joined to it before, or itself.
struct Alike(Vec<usize>);

impl Alike {
    fn first(&self, mut of: usize) -> usize {
        while self.0[of] != of {
            of = self.0[of];
        }
        of
    }

    fn join(&mut self, one: usize, other: usize) {
        let (one, other) = (self.first(one), self.first(other));
        self.0[one] = other;
    }
}

struct Slots {
    /// Where the next slot begins: among maps, among rows.
    ends: [usize; 2],
    free: Vec<(Room, Place)>,
    taken: HashMap<Value, (Room, Place)>,
}

impl Slots {
    /// Gives a value a slot; `None` where the buffer would have more than `most` numbers.
    fn take(&mut self, value: Value, room: Room, layout: Layout, most: usize) -> Option<()> {
        let fits = |(other, place): &(Room, Place)| *other == room && place.layout == layout;
        let slot = match self.free.iter().rposition(fits) {
            Some(found) => self.free.swap_remove(found),
            None => {
                let end = match room {
                    Room::Maps => &mut self.ends[0],
                    Room::Rows => &mut self.ends[1],
                };
                let start = *end;
                let n_numbers = layout.checked_picture()?.checked_next_multiple_of(LINE)?;
                *end = start.checked_add(n_numbers).filter(|end| *end <= most)?;
                (room, Place { start, layout })
            }
        };
        self.taken.insert(value, slot);
        Some(())
    }

    fn free(&mut self, value: Value) {
        self.free.extend(self.taken.remove(&value));
    }

    fn place(&self, value: Value) -> Option<Place> {
        self.taken.get(&value).map(|(_, place)| *place)
    }

    /// A line with its values in their places.
    fn step(&self, line: Line, room: Room) -> Option<Step> {
        let to = self.place(line.makes)?;
        let kind = match line.act {
            Fused::LayOut { input } => return Some(Step::LayOut { input, to }),
            Fused::Sum { of, factor } => return Some(Step::Sum { of: self.place(of)?, factor, to }),
            Fused::Conv { conv, of, summand } => {
                let summand = match summand {
                    Some(summand) => Some(self.place(summand)?),
                    None => None,
                };
                Kind::Conv { conv, of: self.place(of)?, summand }
            }
            Fused::Add { one, other } => Kind::Add { one: self.place(one)?, other: self.place(other)? },
            Fused::Copy { of } => Kind::Copy { of: self.place(of)? },
        };
        let work = Work { kind, activation: line.activation, to };
        Some(match room {
            Room::Maps => Step::Maps(work),
            Room::Rows => Step::Rows(work),
        })
    }
}
