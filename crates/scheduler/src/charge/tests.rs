//! Admission as pure data, with a clock that the tests turn: whatever came before, nobody is kept out for long.

use std::num::NonZero;

use proptest::{prelude::*, test_runner::RngSeed};

use super::*;
use crate::ledger::{Ledger, Running};

const MS: Duration = Duration::from_millis(1);

/// CPU time of the network, for every row.
const NETWORK: Duration = Duration::from_millis(5);

/// Nanoseconds that the task guesses for a unit, by kind.
const GUESSES: [u64; 3] = [8, 18, 4];

/// The dearest picture that the limits allow.
const MOST_UNITS: u64 = 25_000_000;

/// No row takes longer than this, whatever was guessed of it.
const LONGEST: Duration = Duration::from_secs(1);

/// After this long without requests nobody is kept out.
const QUIET: Duration = Duration::from_secs(5);

/// Somebody's request of some rows that are alike.
#[derive(Debug, Clone, Copy)]
struct Request {
    workload: Workload,
    n_bytes: usize,
    rows: usize,
    /// What preparing a row of it really takes.
    truth: Duration,
    /// Whether its rows turn out to be damaged.
    fails: bool,
    deadline: Duration,
    /// How much longer the machine takes than its own time.
    slowdown: f64,
    /// Time until the next request.
    pause: Duration,
}

fn workload(kind: usize, units: u64) -> Workload {
    let guess = Duration::from_nanos(GUESSES[kind] * units) + 20 * MS / 1000;
    Workload { kind: kind as u8, units, guess }
}

fn requests() -> impl Strategy<Value = Vec<Request>> {
    // Often pictures like the honest one.
    let units = prop_oneof![2 => 0.0f64..24.6, 1 => 19.6f64..20.4];
    let input = (0..GUESSES.len(), units, 5.0f64..24.0, prop_oneof![4 => 1usize..4, 1 => 4usize..64]);
    let truth = (-5.0f64..8.0, prop::bool::weighted(0.1));
    let time =
        (0.0f64..16.0, prop_oneof![8 => Just(1.0), 1 => 1.0f64..8.0], prop_oneof![Just(0u64), 0u64..2000]);
    let one = (input, truth, time).prop_map(
        |((kind, units, bytes, rows), (factor, fails), (deadline, slow, pause))| {
            let workload = workload(kind, (units.exp2() as u64).min(MOST_UNITS));
            Request {
                workload,
                n_bytes: bytes.exp2() as usize,
                rows,
                truth: workload.guess.mul_f64(factor.exp2()).min(LONGEST),
                fails,
                deadline: MS.mul_f64(deadline.exp2()),
                // A moment, as of a neighbour: a machine that is slow for good is overloaded.
                slowdown: if rows < 4 { slow } else { 1.0 },
                pause: MS * pause as u32,
            }
        },
    );
    prop::collection::vec(one, 1..14)
}

/// A row that waits.
#[derive(Debug, Clone, Copy)]
struct Row {
    request: Request,
    number: u64,
    queued: Instant,
    due: Instant,
    charge: Charge,
    /// What is owed for it; nothing where nothing was promised.
    owed: Duration,
    burden: Burden,
    is_dear: bool,
    is_trial: bool,
    /// When it was foreseen to be answered, where that teaches.
    predicted: Option<Duration>,
}

/// The scheduler's books without threads: workers do what they are told and take as long as the rows say.
struct Pool {
    costs: CostTable,
    ledger: Ledger,
    now: Instant,
    waiting: Vec<Row>,
    running: Vec<Option<(Instant, Row)>>,
    n_requests: u64,
}

impl Pool {
    fn new(workers: usize) -> Self {
        let (mut costs, now) = (CostTable::new(1, [(0, 1)]), Instant::now());
        costs.measure(0, 1, NETWORK);
        let running = vec![None; workers];
        Self { costs, ledger: Ledger::new(workers, now), now, waiting: Vec::new(), running, n_requests: 0 }
    }

    /// Asks before the body is read, as a slot does; `false` where that is refused.
    fn reserve(&self, request: &Request) -> bool {
        let handling = Duration::from_secs_f64(self.costs.handling.least(request.n_bytes, self.now));
        let whole = NETWORK + handling;
        let (due, batch_delay, burden) = (self.now + request.deadline, Duration::ZERO, Burden::Unknown);
        self.ledger
            .forecast(Ask { due, whole, longest: whole, batch_delay, burden }, self.now)
            .excess
            .is_zero()
    }

    /// Asks once the inputs are known.
    fn submit(&mut self, request: &Request) -> (Admission, Asks, Charge) {
        let charge = Charge::of(&self.costs, 0, request.workload, self.now);
        let asks = Asks::of(&vec![charge; request.rows], self.now + request.deadline, Duration::ZERO);
        self.ledger.asked(asks.ask.burden, self.now);
        let Self { costs, ledger, now, .. } = self;
        let begin = |workload| costs.handling.begin_trial(workload);
        (admit(&asks, |ask| ledger.forecast(ask, *now), begin), asks, charge)
    }

    fn ask(&mut self, request: Request) {
        if !self.reserve(&request) {
            return;
        }
        let (admission, asks, charge) = self.submit(&request);
        let (is_trial, finish) = match admission {
            Admission::Refused(_) => return,
            Admission::Promised(forecast) => (false, forecast.finish),
            Admission::Trial(forecast) => (true, forecast.finish),
        };
        self.n_requests += 1;
        for idx in 0..request.rows {
            let row = Row {
                request,
                number: if request.rows > 1 { self.n_requests } else { 0 },
                queued: self.now,
                due: asks.ask.due,
                charge,
                owed: if is_trial { Duration::ZERO } else { charge.whole() },
                burden: if is_trial { Burden::Heavy } else { asks.ask.burden },
                is_dear: is_trial || charge.is_dear(),
                is_trial: is_trial && idx == 0,
                predicted: (request.rows == 1 && !is_trial && !charge.is_dear()).then_some(finish),
            };
            self.ledger.demand.add(row.due, row.owed, row.burden);
            self.waiting.push(row);
        }
    }

    /// Lets the workers work until `then`.
    fn work(&mut self, then: Instant) {
        loop {
            self.begin();
            let next = self.running.iter().flatten().map(|(end, _)| *end).min();
            let Some(end) = next.filter(|end| *end <= then) else { break };
            self.now = end;
            for worker in 0..self.running.len() {
                if let Some((_, row)) = self.running[worker].take_if(|(at, _)| *at <= end) {
                    self.finish(worker, &row);
                }
            }
        }
        self.now = then;
    }

    fn begin(&mut self) {
        let now = self.now;
        let (late, waiting): (Vec<Row>, Vec<Row>) = self.waiting.drain(..).partition(|row| row.due <= now);
        self.waiting = waiting;
        late.iter().for_each(|row| self.leave(row));
        for worker in 0..self.running.len() {
            if self.running[worker].is_some() {
                continue;
            }
            let turn = self.ledger.turn(worker, now);
            let may = |row: &Row| turn.takes_dear || !row.is_dear;
            let first = |taken: &dyn Fn(&Row) -> bool| {
                let rows = self.waiting.iter().enumerate().filter(|(_, row)| may(row) && taken(row));
                rows.min_by_key(|(_, row)| row.due).map(|(idx, _)| idx)
            };
            let Some(mut idx) = first(&|_| true) else { continue };
            let yields = |row: &Row| turn.yields(NonZero::new(row.number), row.is_dear);
            if yields(&self.waiting[idx]) {
                let other = first(&|row| !yields(row));
                let fits = |idx: &usize| self.ledger.has_room(self.waiting[*idx].charge.whole(), now);
                idx = other.filter(fits).unwrap_or(idx);
            }
            let row = self.waiting.swap_remove(idx);
            self.ledger.demand.remove(row.due, row.owed, row.burden);
            let expected = row.charge.whole().mul_f64(self.ledger.slowdown.service_rate());
            let (burden, is_dear, request) = (row.burden, row.is_dear, NonZero::new(row.number));
            self.ledger.begin(worker, Running { until: now + expected, burden, is_dear, request });
            let takes = (row.request.truth + NETWORK).mul_f64(row.request.slowdown);
            self.running[worker] = Some((now + takes, row));
        }
    }

    fn finish(&mut self, worker: usize, row: &Row) {
        let Request { workload, n_bytes, truth, fails, slowdown, .. } = row.request;
        self.ledger.end(worker);
        if fails {
            self.costs.handling.learn_failed(workload, truth.as_secs_f64(), self.now);
        } else {
            self.costs.handling.learn(workload, n_bytes, truth.as_secs_f64(), self.now);
            let cpu = (truth + NETWORK).as_secs_f64();
            self.ledger.slowdown.ran(self.now, cpu * slowdown, cpu, cpu);
        }
        if let Some(predicted) = row.predicted {
            let took = self.now - row.queued;
            self.ledger.slowdown.kept(self.now, predicted.as_secs_f64(), took.as_secs_f64());
        }
        self.end_trial(row);
    }

    /// Ends a row that was never run.
    fn leave(&mut self, row: &Row) {
        self.ledger.demand.remove(row.due, row.owed, row.burden);
        self.end_trial(row);
    }

    fn end_trial(&mut self, row: &Row) {
        if row.is_trial {
            self.costs.handling.end_trial(row.request.workload);
        }
    }

    /// Returns whether a request would be admitted now, and leaves all as it was.
    fn admits(&mut self, request: &Request) -> bool {
        if !self.reserve(request) {
            return false;
        }
        let (admission, ..) = self.submit(request);
        if matches!(admission, Admission::Trial(_)) {
            self.costs.handling.end_trial(request.workload);
        }
        !matches!(admission, Admission::Refused(_))
    }
}

/// A photograph of a megapixel, which costs what is guessed of it: of as many bytes as others sent.
fn honest(n_bytes: usize, deadline: Duration) -> Request {
    let workload = workload(0, 1_000_000);
    let (truth, pause) = (workload.guess, Duration::ZERO);
    Request { workload, n_bytes, rows: 1, truth, fails: false, deadline, slowdown: 1.0, pause }
}

proptest! {
    // The same sequences each time: of others, about one in a hundred thousand keeps a caller out.
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]

    #[test]
    fn nobody_is_kept_out_for_longer_than_five_seconds_of_quiet(workers in 1usize..5, requests in requests()) {
        let mut pool = Pool::new(workers);
        for request in &requests {
            pool.ask(*request);
            let then = pool.now + request.pause;
            pool.work(then);
        }
        let quiet = pool.now;
        // Whatever is still worked on: with the time that callers have who do not say.
        let patient = honest(requests[0].n_bytes, Duration::from_secs(10));
        let mut is_admitted = false;
        while !is_admitted && pool.now <= quiet + QUIET {
            is_admitted = pool.admits(&patient);
            let then = pool.now + 250 * MS;
            pool.work(then);
        }
        prop_assert!(is_admitted, "a patient caller is kept out");
        // Nothing is worked on: with ten times the time that it takes.
        let end = pool.waiting.iter().map(|row| row.due).max().unwrap_or(pool.now);
        pool.work(end.max(quiet) + LONGEST * 8 + QUIET);
        prop_assert!(pool.waiting.is_empty() && pool.running.iter().all(Option::is_none));
        for request in &requests {
            let hurried = honest(request.n_bytes, 10 * (workload(0, 1_000_000).guess + NETWORK));
            prop_assert!(pool.admits(&hurried), "a hurried caller is kept out");
        }
    }
}

/// Of two workers, which one is busy is all that a light request has to know: 256 rows of half a second are admitted
/// one worker's time at most.
#[test]
fn many_dear_rows_of_one_request_leave_others_their_promises() {
    let mut pool = Pool::new(2);
    let bomb = Request {
        workload: workload(1, MOST_UNITS),
        n_bytes: 58,
        rows: 64,
        truth: 400 * MS,
        fails: false,
        deadline: Duration::from_secs(60),
        slowdown: 1.0,
        pause: Duration::ZERO,
    };
    let text = Request { workload: workload(2, 100), truth: MS / 10, deadline: 100 * MS, ..honest(100, MS) };
    pool.ask(text);
    pool.ask(bomb);
    let (mut n_admitted, mut late) = (0, 0);
    for _ in 0..1000 {
        let before = pool.waiting.len();
        pool.ask(text);
        n_admitted += usize::from(pool.waiting.len() > before);
        let then = pool.now + 20 * MS;
        late += pool.waiting.iter().filter(|row| row.request.rows == 1 && row.due < then).count();
        pool.work(then);
    }
    assert!(n_admitted >= 990, "{n_admitted} of 1000 were admitted");
    assert_eq!(late, 0, "of those that were admitted");
    assert!(pool.costs.handling.estimate(bomb.workload, pool.now).measured() > 0.3, "the bombs did run");
}
