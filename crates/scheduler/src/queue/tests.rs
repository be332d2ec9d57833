//! The queue with a clock that the tests turn, and workers that do what they are told.

mod lingering;
mod promises;
mod turns;

use std::{cell::RefCell, rc::Rc};

use super::*;
use crate::{
    charge::DEAR,
    cost::CostTable,
    entry::RowShape,
    handling::Evidence,
    policy::{Curve, MeasuredPolicy},
    workload::Workload,
};

const MS: Duration = Duration::from_millis(1);
const DEADLINE: Duration = Duration::from_secs(10);

/// CPU time that a run takes however many rows it has, so that rows gain by sharing one.
const RUN: Duration = Duration::from_micros(300);

/// A cost table that queue and test share.
#[derive(Clone)]
struct Costs(Rc<RefCell<CostTable>>);

impl CostModel for Costs {
    fn max_rows(&self) -> usize {
        8
    }

    fn gains(&self) -> bool {
        self.0.borrow().gains()
    }

    fn curve(&self, shape: usize, slowdown: f64) -> Curve {
        self.0.borrow().curve(shape, slowdown)
    }

    fn is_measured(&self, workload: Workload, now: Instant) -> bool {
        self.0.borrow().handling.estimate(workload, now).evidence == Evidence::Measured
    }
}

impl Costs {
    /// Measured costs of two shapes, in runs of up to eight rows.
    fn measured() -> Self {
        let mut table = CostTable::new(8, [(1, 1), (2, 2)]);
        for (shape, rows) in [1, 2].into_iter().flat_map(|shape| [1, 2, 4, 8].map(|rows| (shape, rows))) {
            table.measure(shape, rows, RUN);
        }
        Self(Rc::new(RefCell::new(table)))
    }
}

/// A row by its name, whose caller may leave.
#[derive(Debug, Clone)]
struct Named {
    name: String,
    is_cancelled: Rc<std::cell::Cell<bool>>,
}

impl Cancellable for Named {
    fn is_cancelled(&self) -> bool {
        self.is_cancelled.get()
    }
}

impl Named {
    fn new(name: &str) -> Self {
        Self { name: name.to_owned(), is_cancelled: Rc::default() }
    }
}

/// A queue whose workers do what they are told when the test says so.
struct Bench {
    queue: Queue<Named, Costs>,
    model: Key,
    costs: Costs,
    now: Instant,
}

/// Rows of one request: their names, when they are due, and what each costs.
struct Rows<'n> {
    names: &'n [&'n str],
    due: Duration,
    cost: Duration,
    is_unknown: bool,
}

impl Bench {
    fn new(workers: usize) -> Self {
        let (now, costs) = (Instant::now(), Costs::measured());
        let mut queue = Queue::new(workers, Arc::new(MeasuredPolicy), now);
        Self { model: queue.add(costs.clone()), queue, costs, now }
    }

    fn params(&self) -> SchedParams {
        SchedParams {
            arrived: self.now,
            queued: self.now,
            deadline: DEADLINE,
            predicted: None,
            class: Class::Interactive,
            balance: Balance::Fast,
            shape: RowShape::Sure(1),
            bytes: 1,
            workload: Workload::of_bytes(1),
            handling: Duration::ZERO,
            network: MS,
            charge: Some(MS),
            burden: Burden::Light,
            is_dear: false,
            is_unknown: false,
            request: None,
        }
    }

    /// Queues a row whose shape is known once it is prepared.
    fn come_lingering(&mut self, balance: Balance) {
        let params = SchedParams { balance, shape: RowShape::Likely(1), ..self.params() };
        let left = self.queue.push(self.model, vec![QueueEntry { params, job: Named::new("row") }]);
        assert!(left.is_empty());
    }

    /// Queues the rows of one request.
    fn come(&mut self, rows: Rows<'_>) {
        let Rows { names, due, cost, is_unknown } = rows;
        let is_dear = cost > DEAR;
        let burden = if is_dear { Burden::Heavy } else { Burden::Light };
        let ask =
            Ask { due: self.now + due, whole: cost, longest: cost, batch_delay: Duration::ZERO, burden };
        self.queue.forecast(ask, Class::Interactive, self.now);
        let params = SchedParams {
            deadline: due,
            handling: cost,
            network: Duration::ZERO,
            charge: Some(cost),
            burden,
            is_dear,
            is_unknown,
            ..self.params()
        };
        let entries = names.iter().map(|name| QueueEntry { params, job: Named::new(name) }).collect();
        assert!(self.queue.push(self.model, entries).is_empty());
    }

    /// What the worker does now, in no time: how many rows it runs, or until when it rests.
    fn work(&mut self) -> Result<usize, Option<Instant>> {
        loop {
            let (work, ended) = self.queue.take(0, self.now);
            assert!(ended.is_empty());
            match work {
                Work::Prepare(mut rows) => {
                    rows.iter_mut().for_each(|row| row.params.shape = RowShape::Prepared(1));
                    let done = Done::Prepared { queue: self.model, rows, ended: Vec::new() };
                    self.queue.finish(0, done, self.now);
                }
                Work::Run(rows) => {
                    self.queue.finish(0, Done::Nothing, self.now);
                    return Ok(rows.len());
                }
                Work::Linger(until) => return Err(Some(until)),
                Work::Idle(until) => return Err(until),
                Work::Leave => panic!("there is more to do"),
            }
        }
    }

    /// Turns the clock to when all that waits has run: how many rows each run had, and how long it took.
    fn finish(&mut self) -> (Vec<usize>, Duration) {
        let (began, mut runs) = (self.now, Vec::new());
        loop {
            match self.work() {
                Ok(rows) => runs.push(rows),
                Err(Some(until)) => self.now = until,
                Err(None) => return (runs, self.now - began),
            }
        }
    }

    /// What a worker that has ended what it did is told to run: the first of its rows.
    fn next(&mut self, worker: usize) -> Option<String> {
        self.queue.finish(worker, Done::Nothing, self.now);
        let (work, ended) = self.queue.take(worker, self.now);
        assert!(ended.is_empty());
        match work {
            Work::Run(rows) => Some(rows[0].job.name.clone()),
            Work::Linger(_) | Work::Idle(_) => None,
            Work::Prepare(_) | Work::Leave => panic!("there is nothing of that kind"),
        }
    }
}
