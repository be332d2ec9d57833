//! What a network says of each cell of its grids, turned into boxes on the canvas.
//!
//! A grid has 5 numbers a cell, or 15: the logit of "a face is centred in this cell"; its centre, in cells
//! from the cell's upper left corner; the logarithms of its width and height in cells; and five landmarks
//! (left eye, right eye, nose, left and right corner of the mouth, as they stand in the picture), in cells
//! from the same corner.
//!
//! Invariant: every number of a candidate is finite. A network that gives others has failed, and says so.

use super::super::{GridSpec, SpecError, fit::misfit};
use crate::{
    engine::{Dim, Port, Signature},
    error::Error,
    image::Letterbox,
    tensor::{DType, Tensor},
};

/// Landmarks of a face.
pub(super) const N_LANDMARKS: usize = 5;

/// Numbers of a cell: without landmarks, and with them.
const PLAIN: usize = 5;
const MARKED: usize = PLAIN + 2 * N_LANDMARKS;

/// Strides that are served: all of them divide the sides of a canvas.
const STRIDES: [u32; 4] = [4, 8, 16, 32];

/// Candidates that are compared with each other at most, the surest: what a crowd needs several times over.
const MOST_CANDIDATES: usize = 1024;

/// Largest logarithm of a box's side in cells: larger than any canvas, and finite when it is raised.
const LARGEST_LOG: f32 = 12.0;

/// Farthest from its cell, in cells, that anything is looked for: beyond any canvas, and finite in pixels.
const FARTHEST: f32 = 1e6;

/// Share of a box that lies within another of which it is a part.
const PART: f32 = 0.7;

/// A box that may be a face, in pixels of the canvas.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Candidate {
    pub(super) logit: f32,
    /// Upper left and lower right corner.
    pub(super) from: [f32; 2],
    pub(super) to: [f32; 2],
    pub(super) landmarks: Option<[[f32; 2]; N_LANDMARKS]>,
}

impl Candidate {
    /// Pixels of the canvas that the box covers.
    pub(super) fn area(&self) -> f32 {
        (self.to[0] - self.from[0]).max(0.0) * (self.to[1] - self.from[1]).max(0.0)
    }

    /// Returns whether most of the box lies within another that is at least twice as large.
    pub(super) fn is_part_of(&self, other: &Self) -> bool {
        let from = [0, 1].map(|axis| self.from[axis].max(other.from[axis]));
        let to = [0, 1].map(|axis| self.to[axis].min(other.to[axis]));
        let shared = (to[0] - from[0]).max(0.0) * (to[1] - from[1]).max(0.0);
        shared >= PART * self.area() && other.area() >= 2.0 * self.area()
    }

    /// The same box on a canvas where everything is that much larger, across and down.
    pub(super) fn enlarged(self, by: [f32; 2]) -> Self {
        let point = |[x, y]: [f32; 2]| [x * by[0], y * by[1]];
        let landmarks = self.landmarks.map(|marks| marks.map(point));
        Self { logit: self.logit, from: point(self.from), to: point(self.to), landmarks }
    }
}

/// The grids of a network.
pub(super) struct Grids {
    grids: Vec<Grid>,
}

/// One output.
struct Grid {
    name: String,
    /// Its position among the network's outputs.
    position: usize,
    stride: u32,
}

impl Grids {
    /// Holds the manifest's grids to the network's outputs.
    pub(super) fn build(specs: &[GridSpec], signature: &Signature) -> Result<Self, SpecError> {
        if specs.is_empty() {
            return Err(misfit("outputs is empty, but at least one grid is needed"));
        }
        let mut grids: Vec<Grid> = Vec::new();
        let mut numbers = None;
        for GridSpec { name, stride } in specs {
            if !STRIDES.contains(stride) {
                return Err(misfit(format!(
                    "output {name:?} has stride {stride}, but 4, 8, 16 and 32 are allowed"
                )));
            }
            if grids.iter().any(|grid| grid.name == *name || grid.stride == *stride) {
                return Err(misfit(format!(
                    "output {name:?} of stride {stride} repeats a name or a stride, but each is to be given once"
                )));
            }
            let position = signature.outputs.iter().position(|port| port.name == *name).ok_or_else(|| {
                let names: Vec<&str> = signature.outputs.iter().map(|port| port.name.as_str()).collect();
                misfit(format!("outputs names {name:?}, but the network's outputs are {}", names.join(", ")))
            })?;
            let n = cell_numbers(&signature.outputs[position])?;
            if let (Some(n), Some(other)) = (n, numbers)
                && n != other
            {
                return Err(misfit(format!(
                    "output {name:?} has {n} numbers a cell, but another has {other}"
                )));
            }
            numbers = numbers.or(n);
            grids.push(Grid { name: name.clone(), position, stride: *stride });
        }
        Ok(Self { grids })
    }

    /// The boxes whose logit is at least `least`, the surest of them where they are too many to compare.
    ///
    /// # Errors
    /// [`Error::Internal`] for an output of another shape, or one with a number that is not finite.
    pub(super) fn candidates(
        &self,
        outputs: &[Tensor],
        letterbox: &Letterbox,
        least: f32,
    ) -> Result<Vec<Candidate>, Error> {
        let mut found = Vec::new();
        for grid in &self.grids {
            let cells = grid.cells(outputs, letterbox)?;
            let shown = |cell: &usize| {
                let [column, row] = cells.place(*cell).map(|at| at as u32 * grid.stride);
                // Beyond the picture there is padding, and no face.
                column < letterbox.shown[0] && row < letterbox.shown[1]
            };
            let logits = cells.channel(0).iter().enumerate();
            let sure = logits.filter(|(cell, logit)| **logit >= least && shown(cell));
            found.extend(sure.map(|(cell, _)| cells.candidate(cell, grid.stride as f32)));
        }
        if found.len() > MOST_CANDIDATES {
            found.select_nth_unstable_by(MOST_CANDIDATES - 1, |a: &Candidate, b| b.logit.total_cmp(&a.logit));
            found.truncate(MOST_CANDIDATES);
        }
        Ok(found)
    }

    /// Every cell's logit, and every other number of it, grid by grid.
    ///
    /// # Errors
    /// As [`Grids::candidates`].
    pub(super) fn numbers(
        &self,
        outputs: &[Tensor],
        letterbox: &Letterbox,
        mut take: impl FnMut(Number, f32),
    ) -> Result<(), Error> {
        for grid in &self.grids {
            let cells = grid.cells(outputs, letterbox)?;
            cells.channel(0).iter().for_each(|logit| take(Number::Logit, *logit));
            cells.values[cells.n_cells..].iter().for_each(|value| take(Number::Place, *value));
        }
        Ok(())
    }
}

/// What a number of a cell says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    Logit,
    /// Where something is, or the logarithm of how large.
    Place,
}

/// The numbers of a grid's cells: f32 [numbers, rows, columns].
struct Cells<'a> {
    values: &'a [f32],
    n_cells: usize,
    n_columns: usize,
}

impl Grid {
    fn cells<'a>(&self, outputs: &'a [Tensor], letterbox: &Letterbox) -> Result<Cells<'a>, Error> {
        let name = &self.name;
        let fault = |what: String| Error::Internal(format!("the network gave {what} as {name:?}"));
        let output = outputs.get(self.position).ok_or_else(|| fault("nothing".to_owned()))?;
        let [width, height] = letterbox.canvas.map(|side| (side / self.stride) as usize);
        match *output.shape() {
            [PLAIN | MARKED, rows, columns] if [columns, rows] == [width, height] => {}
            _ => {
                let found = output.describe();
                return Err(fault(format!(
                    "{found} where [{PLAIN} or {MARKED}, {height}, {width}] is expected"
                )));
            }
        }
        let values = output.as_slice::<f32>().map_err(|error| fault(error.to_string()))?;
        match values.iter().find(|value| !value.is_finite()) {
            Some(value) => Err(fault(format!("{value}"))),
            None => Ok(Cells { values, n_cells: width * height, n_columns: width }),
        }
    }
}

impl Cells<'_> {
    fn channel(&self, channel: usize) -> &[f32] {
        &self.values[channel * self.n_cells..][..self.n_cells]
    }

    /// Column and row of a cell.
    fn place(&self, cell: usize) -> [usize; 2] {
        [cell % self.n_columns, cell / self.n_columns]
    }

    fn candidate(&self, cell: usize, stride: f32) -> Candidate {
        let of = |channel: usize| self.values[channel * self.n_cells + cell];
        let corner = self.place(cell).map(|at| at as f32);
        let near = |channel: usize| of(channel).clamp(-FARTHEST, FARTHEST);
        let point = |channel: usize| [0, 1].map(|axis| (corner[axis] + near(channel + axis)) * stride);
        let centre = point(1);
        let half = [3, 4].map(|channel| of(channel).min(LARGEST_LOG).exp() * stride / 2.0);
        let marked = self.values.len() == MARKED * self.n_cells;
        Candidate {
            logit: of(0),
            from: [0, 1].map(|axis| centre[axis] - half[axis]),
            to: [0, 1].map(|axis| centre[axis] + half[axis]),
            landmarks: marked.then(|| std::array::from_fn(|mark| point(PLAIN + 2 * mark))),
        }
    }
}

/// The numbers a cell that an output declares, where it does; refuses one that cannot be a grid.
fn cell_numbers(port: &Port) -> Result<Option<usize>, SpecError> {
    let (name, found) = (&port.name, port.describe());
    let grid = match (port.dtype, port.shape.as_slice()) {
        (DType::F32, [_, Dim::Fixed(n @ (PLAIN | MARKED)), Dim::Free(_), Dim::Free(_)]) => Some(Some(*n)),
        (DType::F32, [_, Dim::Free(_), Dim::Free(_), Dim::Free(_)]) => Some(None),
        _ => None,
    };
    grid.ok_or_else(|| {
        misfit(format!(
            "output {name:?} is {found}, but a grid is f32 [batch, {PLAIN} or {MARKED}, rows, columns], the last \
             two free"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Tensor;

    const LETTERBOX: Letterbox = Letterbox { picture: [64, 40], shown: [64, 40], canvas: [64, 64] };

    fn grids(strides: &[u32]) -> Grids {
        let grid = |(position, stride): (usize, &u32)| Grid {
            name: format!("stride_{stride}"),
            position,
            stride: *stride,
        };
        Grids { grids: strides.iter().enumerate().map(grid).collect() }
    }

    /// A grid of 64 by 64 pixels in which each cell holds `empty`, but for one.
    fn output(stride: usize, empty: f32, [column, row]: [usize; 2], cell: &[f32]) -> Tensor {
        let n = 64 / stride;
        let mut values = vec![empty; cell.len() * n * n];
        for (channel, value) in cell.iter().enumerate() {
            values[channel * n * n + row * n + column] = *value;
        }
        Tensor::new::<f32>(vec![cell.len(), n, n], values).unwrap()
    }

    #[test]
    fn a_cell_says_where_its_face_is_in_pixels_of_the_canvas() {
        let cell = [2.0, 0.5, 0.25, 2f32.ln(), 0.0];
        let outputs = vec![output(8, -9.0, [3, 2], &cell)];
        let found = grids(&[8]).candidates(&outputs, &LETTERBOX, 0.0).unwrap();
        let [face] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((face.logit, face.landmarks), (2.0, None));
        assert_eq!((face.from, face.to), ([20.0, 14.0], [36.0, 22.0]));
    }

    #[test]
    fn landmarks_stand_in_their_order() {
        let marks = [0.0, 0.0, 1.0, 0.0, 0.5, 0.5, 0.0, 1.0, 1.0, 1.0];
        let cell = [&[2.0, 0.5, 0.5, 0.0, 0.0], marks.as_slice()].concat();
        let outputs = vec![output(16, -9.0, [1, 0], &cell)];
        let found = grids(&[16]).candidates(&outputs, &LETTERBOX, 0.0).unwrap();
        let expected = [[16.0, 0.0], [32.0, 0.0], [24.0, 8.0], [16.0, 16.0], [32.0, 16.0]];
        assert_eq!(found[0].landmarks, Some(expected));
    }

    #[test]
    fn every_grid_counts_and_padding_does_not() {
        let sure = [3.0, 0.5, 0.5, 0.0, 0.0];
        let outputs = vec![output(8, -9.0, [0, 4], &sure), output(32, -9.0, [1, 1], &sure)];
        assert_eq!(grids(&[8, 32]).candidates(&outputs, &LETTERBOX, 3.0).unwrap().len(), 2);
        assert_eq!(grids(&[8, 32]).candidates(&outputs, &LETTERBOX, 3.1).unwrap(), []);
        // The picture ends above this row.
        let outputs = vec![output(8, -9.0, [0, 5], &sure)];
        assert_eq!(grids(&[8]).candidates(&outputs, &LETTERBOX, 3.0).unwrap(), []);
    }

    #[test]
    fn numbers_that_are_none_are_a_fault_and_huge_ones_stay_finite() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for channel in 0..5 {
                let mut cell = [-9.0; 5];
                cell[channel] = bad;
                let outputs = vec![output(8, -9.0, [1, 1], &cell)];
                let error = grids(&[8]).candidates(&outputs, &LETTERBOX, 0.0).unwrap_err();
                assert!(matches!(error, Error::Internal(_)), "{error:?}");
            }
        }
        let outputs = vec![output(8, -9.0, [1, 1], &[9.0, f32::MAX, f32::MIN, f32::MAX, f32::MIN])];
        let found = grids(&[8]).candidates(&outputs, &LETTERBOX, 0.0).unwrap();
        assert!(found[0].from.iter().chain(&found[0].to).all(|at| at.is_finite()), "{found:?}");
    }

    #[test]
    fn an_output_of_another_shape_is_a_fault() {
        for shape in [vec![5, 8, 4], vec![6, 8, 8], vec![5, 64], vec![]] {
            let n = shape.iter().product();
            let outputs = vec![Tensor::new::<f32>(shape, vec![0.0; n]).unwrap()];
            assert!(grids(&[8]).candidates(&outputs, &LETTERBOX, 0.0).is_err());
        }
        assert!(grids(&[8]).candidates(&[], &LETTERBOX, 0.0).is_err());
    }

    #[test]
    fn of_more_than_can_be_compared_the_surest_are_taken() {
        let letterbox = Letterbox { picture: [512, 512], shown: [512, 512], canvas: [512, 512] };
        let n = 64 * 64;
        let mut values: Vec<f32> = (0..n).map(|cell| cell as f32).collect();
        values.resize(5 * n, 0.0);
        let outputs = vec![Tensor::new::<f32>(vec![5, 64, 64], values).unwrap()];
        let found = grids(&[8]).candidates(&outputs, &letterbox, 0.0).unwrap();
        assert_eq!(found.len(), MOST_CANDIDATES);
        assert!(found.iter().all(|candidate| candidate.logit >= (n - MOST_CANDIDATES) as f32));
    }
}
