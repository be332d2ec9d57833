//! What rows of a model cost, by the shape of a row and the rows in a run: measured once when the model
//! loads, and kept true by every run since.
//!
//! Invariant: the table holds measurements only, in CPU time. What was not measured is worked out from
//! its nearest neighbours when it is asked for, and is never shown as measured.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{handling::Handling, policy::Curve, workload::Workload};

/// Weight of the newest run. Three dozen runs forget what was.
const NEWEST: f64 = 0.1;

/// No single run counts as more than this many times what was expected, nor as less than its inverse: a
/// worker that was interrupted says little of the network.
const STRANGEST: f64 = 4.0;

/// A network whose rows save less than this by sharing a run is taken to save nothing: measurements
/// differ by as much.
const NOISE: f64 = 0.05;

/// Rows do not share runs where that saves less than this of what a row costs, the network and all around it.
const WORTH: f64 = 0.01;

/// A batch is large enough when its rows cost at most this much more than those of the best.
const ENOUGH: f64 = 0.005;

/// Of so many runs of a shape that callers waited for, one may take the next larger batch: what nobody runs
/// would be judged for ever by what it cost when the model loaded.
const TRIAL: u32 = 16;

/// Shapes that were not profiled and are remembered, those of the last runs: callers could make shapes without end.
const MOST_MET: usize = 256;

/// The best batch of a shape is found anew after so many of its runs: it looks at three shapes, and costs
/// move slowly.
const REVIEW: u32 = 4;

/// Measured cost of runs of so many rows of one shape.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// Which shape: the task's own number for it.
    pub shape_class: usize,
    /// Rows per run.
    pub rows: usize,
    /// Mean CPU time of the network per row, in seconds.
    pub seconds_per_row: f64,
    /// 95th percentile of the same.
    pub p95_seconds_per_row: f64,
    /// Runs seen.
    pub runs: u64,
}

/// How many rows a run should take, for one shape of row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Best {
    /// Which shape: the task's own number for it.
    pub shape_class: usize,
    /// The smallest number of rows beyond which a batch gains nothing.
    pub rows: usize,
}

/// Mean and 95th percentile of a run's CPU time, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Cell {
    mean: f64,
    p95: f64,
    runs: u64,
}

/// What is known of one shape of row.
#[derive(Debug, Clone)]
struct Shape {
    /// Numbers in a row: what an unmeasured cost is scaled by.
    size: usize,
    /// Whether it was given when the table was made: then it is never forgotten.
    is_profiled: bool,
    /// By position in the grid.
    cells: Vec<Option<Cell>>,
    /// Rows of the best run, as of the last review.
    best: usize,
    /// The table's clock when a run of it was last seen.
    seen: u64,
    /// Runs that callers waited for.
    runs: u32,
}

/// What a queue asks of what its model costs.
pub trait CostModel {
    /// Most rows that one run takes.
    fn max_rows(&self) -> usize;
    /// Returns whether rows of some shape gain by sharing a run.
    fn gains(&self) -> bool;
    /// What runs of a shape take, where `slowdown` is wall seconds for a CPU second.
    fn curve(&self, shape: usize, slowdown: f64) -> Curve;
    /// Returns whether it is known at `now` what an input of that workload costs.
    fn is_measured(&self, workload: Workload, now: Instant) -> bool;
}

impl<C: CostModel + ?Sized> CostModel for Arc<C> {
    fn max_rows(&self) -> usize {
        (**self).max_rows()
    }

    fn gains(&self) -> bool {
        (**self).gains()
    }

    fn curve(&self, shape: usize, slowdown: f64) -> Curve {
        (**self).curve(shape, slowdown)
    }

    fn is_measured(&self, workload: Workload, now: Instant) -> bool {
        (**self).is_measured(workload, now)
    }
}

/// The cost table of one model.
#[derive(Debug)]
pub struct CostTable {
    /// The numbers of rows that are measured: 1, 2, 4 and so on, up to the model's limit.
    grid: Vec<usize>,
    shapes: BTreeMap<usize, Shape>,
    /// What preparing and answering inputs costs.
    pub handling: Handling,
    /// Mean CPU seconds of preparing inputs as they come, whatever their size.
    preparing: Option<f64>,
    /// Mean CPU seconds of a worker for each run beside its rows: asking for it, gathering its rows, waking
    /// those who wait for their answers.
    around: Option<f64>,
    /// Runs that callers waited for, of whatever shape.
    clock: u64,
}

impl CostTable {
    /// An empty table for runs of at most `max_rows` rows of shapes that are given as the task's number
    /// for it and the numbers in such a row.
    pub fn new(max_rows: usize, shapes: impl IntoIterator<Item = (usize, usize)>) -> Self {
        let max_rows = max_rows.max(1);
        let mut grid: Vec<usize> = std::iter::successors(Some(1), |rows| Some(rows * 2))
            .take_while(|rows| *rows <= max_rows)
            .collect();
        if grid.last() != Some(&max_rows) {
            grid.push(max_rows);
        }
        let shape = |size: usize| Shape::new(size, grid.len(), true);
        let shapes = shapes.into_iter().map(|(shape_class, size)| (shape_class, shape(size))).collect();
        Self { grid, shapes, handling: Handling::default(), preparing: None, around: None, clock: 0 }
    }

    /// The numbers of rows that are measured.
    pub fn grid(&self) -> &[usize] {
        &self.grid
    }

    /// Records a measurement that nobody waited for: the CPU time of a run of `rows` rows, where `rows`
    /// is in the grid.
    pub fn measure(&mut self, shape_class: usize, rows: usize, cpu: Duration) {
        let cpu = cpu.as_secs_f64();
        let Some(position) = self.grid.iter().position(|other| *other == rows) else { return };
        let Some(shape) = self.shapes.get_mut(&shape_class) else { return };
        shape.cells[position] = Some(Cell { mean: cpu, p95: cpu, runs: 1 });
        self.choose(shape_class);
    }

    /// Records a run that callers waited for, of `rows` rows of `size` numbers each: corrects the measured runs next to
    /// it by as much as it cost more or less than they said. A shape that was never seen is known from then on.
    pub fn learn(&mut self, shape_class: usize, size: usize, rows: usize, cpu: Duration) {
        let (cpu, expected) = (cpu.as_secs_f64(), self.run(shape_class, rows));
        if rows == 0 || cpu <= 0.0 {
            return;
        }
        if !self.shapes.contains_key(&shape_class) {
            self.meet(shape_class, size);
        }
        self.clock += 1;
        let above = self.grid.iter().position(|other| *other >= rows).unwrap_or(self.grid.len() - 1);
        let below = if self.grid[above] == rows { above } else { above.saturating_sub(1) };
        let Some(shape) = self.shapes.get_mut(&shape_class) else { return };
        shape.seen = self.clock;
        let was_measured = shape.is_measured();
        let ratio = if expected > 0.0 { (cpu / expected).clamp(1.0 / STRANGEST, STRANGEST) } else { 1.0 };
        for position in below..=above {
            match &mut shape.cells[position] {
                Some(cell) => cell.learn(ratio),
                // Nobody measured it: the first run is the measurement.
                unmeasured if self.grid[position] == rows => {
                    *unmeasured = Some(Cell { mean: cpu, p95: cpu, runs: 1 });
                }
                // Of a shape of which nothing is known, the run next to it is better than a guess.
                unmeasured if !was_measured && position == above => {
                    let mean = cpu * self.grid[position] as f64 / rows as f64;
                    *unmeasured = Some(Cell { mean, p95: mean, runs: 1 });
                }
                _ => {}
            }
        }
        shape.runs = shape.runs.wrapping_add(1);
        if shape.runs % REVIEW == 0 {
            self.choose(shape_class);
        }
    }

    /// Makes room for a shape that was not profiled, where there are too many in place of the one that has not been seen
    /// for longest.
    fn meet(&mut self, shape_class: usize, size: usize) {
        let met = || self.shapes.iter().filter(|(_, shape)| !shape.is_profiled);
        if met().count() >= MOST_MET
            && let Some((oldest, _)) = met().min_by_key(|(_, shape)| shape.seen)
        {
            let oldest = *oldest;
            self.shapes.remove(&oldest);
        }
        let shape = Shape::new(size, self.grid.len(), false);
        self.shapes.insert(shape_class, shape);
    }

    /// Learns what preparing one input took, whatever its size.
    pub fn prepared(&mut self, prepare: Duration) {
        blend(&mut self.preparing, prepare.as_secs_f64());
    }

    /// Records what a run took of a worker's time beside its rows.
    pub fn ran(&mut self, around: Duration) {
        blend(&mut self.around, around.as_secs_f64());
    }

    /// Mean CPU seconds of a worker for each run beside its rows; 0 before the first.
    pub fn around(&self) -> f64 {
        self.around.unwrap_or_default()
    }

    /// CPU seconds that a run of `rows` rows is likely to take; 0 before anything was measured.
    pub fn run(&self, shape_class: usize, rows: usize) -> f64 {
        let measured = self.shapes.values().filter(|shape| shape.is_measured());
        let (shape, scale) = match self.shapes.get(&shape_class) {
            Some(shape) if shape.is_measured() => (shape, 1.0),
            // The nearest shape that was measured, in proportion: what networks cost grows with the row.
            Some(Shape { size, .. }) => match measured.min_by_key(|shape| shape.size.abs_diff(*size)) {
                Some(near) => (near, *size as f64 / near.size as f64),
                None => return 0.0,
            },
            // Of a shape that was never seen not even the size is known: the last one seen is the best guess.
            None => match measured.max_by_key(|shape| shape.seen) {
                Some(last) => (last, 1.0),
                None => return 0.0,
            },
        };
        scale * shape.run(&self.grid, rows.max(1))
    }

    /// Returns whether rows of some shape gain by sharing a run.
    pub fn gains(&self) -> bool {
        self.shapes.values().any(|shape| shape.best > 1)
    }

    /// What the policy needs to know of a shape class; `slowdown` is wall seconds for a CPU second.
    pub fn curve(&self, shape_class: usize, slowdown: f64) -> Curve {
        let best = self.shapes.get(&shape_class).map_or(1, |shape| shape.next(&self.grid));
        let cpu = |rows| self.run(shape_class, rows) + self.around();
        let wall = |rows| Duration::try_from_secs_f64(cpu(rows) * slowdown).unwrap_or_default();
        let one = wall(1);
        Curve { best, one, full: if best == 1 { one } else { wall(best) } }
    }

    /// Finds the best number of rows of a shape class anew, and of its neighbours, who gain alike.
    fn choose(&mut self, shape_class: usize) {
        let near: Vec<usize> = self.neighbours(shape_class).map(|(shape_class, _)| shape_class).collect();
        for shape_class in near {
            let best = self.find_best(shape_class);
            if let Some(shape) = self.shapes.get_mut(&shape_class) {
                shape.best = best;
            }
        }
    }

    /// A shape, and those next to it in size.
    fn neighbours(&self, shape_class: usize) -> impl Iterator<Item = (usize, &Shape)> + Clone {
        let own = self.shapes.get(&shape_class).map_or(0, |shape| shape.size);
        let key = move |(shape_class, shape): &(&usize, &Shape)| (shape.size, **shape_class);
        let below = self.shapes.iter().filter(move |of| key(of) < (own, shape_class)).max_by_key(key);
        let above = self.shapes.iter().filter(move |of| key(of) > (own, shape_class)).min_by_key(key);
        let own = self.shapes.get_key_value(&shape_class);
        [below, own, above].into_iter().flatten().map(|(shape_class, shape)| (*shape_class, shape))
    }

    /// The smallest number of rows that has what a batch gains, of all that a row costs: the network, its part
    /// of what is around a run, preparing. Answering is left out: next to nothing, and not measured in CPU time.
    fn find_best(&self, shape_class: usize) -> usize {
        let Some(one) = self.shapes.get(&shape_class).and_then(|shape| shape.cells[0]) else { return 1 };
        let network: Vec<(usize, f64)> = self.network(shape_class).collect();
        let least = network.iter().map(|(_, ratio)| *ratio).fold(f64::INFINITY, f64::min);
        let (around, preparing) = (self.around(), self.preparing.unwrap_or_default());
        let costs = || {
            network.iter().map(|(rows, ratio)| {
                let ratio = if least < 1.0 - NOISE { *ratio } else { ratio.max(1.0) };
                (*rows, ratio * one.mean + around / *rows as f64 + preparing)
            })
        };
        let alone = one.mean + around + preparing;
        let least = costs().map(|(_, cost)| cost).fold(f64::INFINITY, f64::min);
        if least > alone * (1.0 - WORTH) {
            return 1;
        }
        costs().find(|(_, cost)| *cost <= least * (1.0 + ENOUGH)).map_or(1, |(rows, _)| rows)
    }

    /// What the network takes for a row of a batch against a row alone, for each number of rows that was
    /// measured: the mean over the shape and its neighbours, so that one measurement that something disturbed
    /// decides nothing.
    fn network(&self, shape_class: usize) -> impl Iterator<Item = (usize, f64)> {
        let (near, own) = (self.neighbours(shape_class), self.shapes.get(&shape_class));
        let measured = move |position: &usize| own.is_some_and(|shape| shape.cells[*position].is_some());
        (0..self.grid.len()).filter(measured).filter_map(move |position| {
            let rows = self.grid[position];
            let ratio = |(_, shape): (usize, &Shape)| {
                let (one, many) = (shape.cells[0].as_ref()?.mean, shape.cells[position].as_ref()?.mean);
                (one > 0.0).then(|| many / rows as f64 / one)
            };
            let (n, sum) =
                near.clone().filter_map(ratio).fold((0, 0.0), |(n, sum), ratio| (n + 1, sum + ratio));
            (n > 0).then(|| (rows, sum / f64::from(n)))
        })
    }

    /// One entry per shape and number of rows that was measured.
    pub fn measured(&self) -> Vec<Measured> {
        let of_shape = |(shape_class, shape): (&usize, &Shape)| {
            let shape_class = *shape_class;
            let of_cell = move |(rows, cell): (&usize, &Option<Cell>)| {
                cell.map(|cell| Measured {
                    shape_class,
                    rows: *rows,
                    seconds_per_row: cell.mean / *rows as f64,
                    p95_seconds_per_row: cell.p95 / *rows as f64,
                    runs: cell.runs,
                })
            };
            self.grid.iter().zip(&shape.cells).filter_map(of_cell).collect::<Vec<_>>()
        };
        self.shapes.iter().flat_map(of_shape).collect()
    }

    /// The best number of rows for each shape that was measured.
    pub fn bests(&self) -> Vec<Best> {
        let measured = self.shapes.iter().filter(|(_, shape)| shape.is_measured());
        measured.map(|(shape_class, shape)| Best { shape_class: *shape_class, rows: shape.best }).collect()
    }
}

impl Shape {
    fn new(size: usize, n_cells: usize, is_profiled: bool) -> Self {
        Self { size: size.max(1), is_profiled, cells: vec![None; n_cells], best: 1, seen: 0, runs: 0 }
    }

    fn is_measured(&self) -> bool {
        self.cells.iter().any(Option::is_some)
    }

    /// Rows of the next run: those of the best, or now and then a trial of more.
    fn next(&self, grid: &[usize]) -> usize {
        if self.runs % TRIAL != TRIAL - 1 {
            return self.best;
        }
        let mut measured = grid.iter().zip(&self.cells).filter(|(_, cell)| cell.is_some());
        measured.find(|(rows, _)| **rows > self.best).map_or(self.best, |(rows, _)| *rows)
    }

    /// CPU seconds of a run of `rows` rows: on the line between the measured runs below and above it,
    /// in proportion to the last one beyond it.
    fn run(&self, grid: &[usize], rows: usize) -> f64 {
        let mut below: Option<(usize, f64)> = None;
        for (at, cell) in grid.iter().zip(&self.cells) {
            let Some(Cell { mean, .. }) = cell else { continue };
            match below {
                _ if *at == rows => return *mean,
                Some((low, seconds)) if *at > rows => {
                    return seconds + (mean - seconds) * (rows - low) as f64 / (at - low) as f64;
                }
                None if *at > rows => return mean * rows as f64 / *at as f64,
                _ => below = Some((*at, *mean)),
            }
        }
        below.map_or(0.0, |(low, seconds)| seconds * rows as f64 / low as f64)
    }
}

impl Cell {
    /// Records a run that cost `ratio` times what was expected.
    fn learn(&mut self, ratio: f64) {
        let sample = self.mean * ratio;
        self.mean += NEWEST * (sample - self.mean);
        // Stochastic approximation of a quantile (Robbins and Monro 1951), in steps of the mean.
        let step = NEWEST * self.mean;
        self.p95 = (self.p95 + if sample > self.p95 { 0.95 * step } else { -0.05 * step }).max(self.mean);
        self.runs += 1;
    }
}

/// Takes a sample into a mean, but no more of it than a few times the mean.
fn blend(mean: &mut Option<f64>, sample: f64) {
    let old = mean.unwrap_or(sample);
    *mean = Some(old + NEWEST * (sample.min(old.max(1e-6) * STRANGEST) - old));
}
