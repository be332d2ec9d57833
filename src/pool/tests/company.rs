//! Who waits for company, and for how long: the queue with a clock that the tests turn.

use tokio::sync::oneshot;

use super::*;
use crate::{
    manifest::Balance,
    pool::{
        arena::Key,
        demand::Burden,
        errand::{Batch, Done, Errand},
        job::{Caller, Job, Matter, Terms},
        model::{Model, Waiting},
        place::{Place, Room},
        queue::Queue,
    },
    task::Workload,
};

const MS: Duration = Duration::from_millis(1);
const DEADLINE: Duration = Duration::from_secs(10);

/// A queue of one worker, which does what it is told in no time.
struct Bench {
    queue: Queue,
    lane: Key,
    model: Arc<Model>,
    room: Arc<Room>,
    now: Instant,
    replies: Vec<oneshot::Receiver<Result<Answered, Error>>>,
}

impl Bench {
    fn new(pool: &ModelPool) -> Self {
        let (mut queue, model) = (Queue::new(1, Rule::Measured), Arc::clone(&pool.models()[0]));
        Self {
            lane: queue.add(Arc::clone(model.costs())),
            queue,
            model,
            room: Arc::new(Room::new(1000, 1000)),
            now: Instant::now(),
            replies: Vec::new(),
        }
    }

    fn come(&mut self, balance: Balance) {
        let (sender, receiver) = oneshot::channel();
        self.replies.push(receiver);
        let input = Input::Text("1".to_owned());
        let job = Job {
            matter: Matter::Input { bucket: Bucket::Likely(1), input },
            caller: Caller {
                arrived: self.now,
                queued: self.now,
                deadline: DEADLINE,
                predicted: None,
                reply: sender,
                span: tracing::Span::none(),
                place: Place::take(&self.room, &self.room, 1).unwrap(),
                body: None,
                trial: None,
            },
            waiting: Waiting::start(&self.model),
            terms: Terms {
                class: Class::Interactive,
                balance,
                bytes: 1,
                workload: Workload::of_bytes(1),
                handling: Duration::ZERO,
                network: MS,
                charge: MS,
                burden: Burden::Light,
                is_dear: false,
                is_unknown: false,
                request: 0,
            },
        };
        self.queue.push(self.lane, vec![job]);
    }

    /// What the worker does now: how many rows it runs, or until when it rests.
    fn work(&mut self) -> Result<usize, Option<Instant>> {
        loop {
            let (errand, ended) = self.queue.take(0, self.now);
            assert!(ended.is_empty());
            match errand {
                Errand::Sort(batch) => {
                    let done = sorted(self.lane, batch);
                    self.queue.finish(0, done, self.now);
                }
                Errand::Run(batch) => {
                    self.queue.finish(0, Done::Nothing, self.now);
                    return Ok(batch.jobs.len());
                }
                Errand::Rest(until) => return Err(until),
                Errand::Chore(_) | Errand::Forget(_) | Errand::Leave => {
                    panic!("there is nothing of that kind")
                }
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
}

/// What preparing gives, for the queue of the test and not the one of the model's own pool.
fn sorted(own: Key, batch: Batch) -> Done {
    match batch::sort(batch) {
        Done::Sorted { rows, ended, .. } => Done::Sorted { lane: own, rows, ended },
        done => done,
    }
}

#[tokio::test]
async fn cheap_rows_that_come_one_by_one_share_runs() {
    let (pool, _gate) = pool(ROOM).await;
    let mut bench = Bench::new(&pool);
    let mut runs = Vec::new();
    for _ in 0..50 {
        bench.come(Balance::Cheap);
        runs.extend(bench.work().ok());
        bench.now += 5 * MS;
    }
    let (rest, waited) = bench.finish();
    assert_eq!(runs[..2], [1, 8], "the first knows of nobody, those after it fill a run: {runs:?}");
    assert_eq!(runs.iter().chain(&rest).sum::<usize>(), 50);
    assert!(runs.len() + rest.len() <= 8, "{runs:?} {rest:?}");
    assert!(waited <= 15 * MS, "nobody else comes: {waited:?}");
}

#[tokio::test]
async fn who_is_alone_learns_not_to_wait() {
    let (pool, _gate) = pool(ROOM).await;
    let mut bench = Bench::new(&pool);
    let mut longest = Duration::ZERO;
    let mut whole = Duration::ZERO;
    for _ in 0..100 {
        bench.come(Balance::Cheap);
        let (runs, waited) = bench.finish();
        assert_eq!(runs, [1]);
        longest = longest.max(waited);
        whole += waited;
        // One who asks again once there is an answer.
        bench.now += 20 * MS;
    }
    assert!(longest < DEADLINE / 4, "{longest:?}");
    assert!(whole < 100 * 10 * MS, "half of the time between two questions, on average: {whole:?}");
}

#[tokio::test]
async fn who_agreed_to_wait_a_run_is_joined_by_who_comes_within_it() {
    let (pool, _gate) = pool(ROOM).await;
    let mut bench = Bench::new(&pool);
    let one = bench.model.costs().curve(1, 1.0).one;
    for _ in 0..3 {
        bench.come(Balance::Fast);
        assert_eq!(bench.work(), Ok(1), "a row in haste runs at once");
        bench.now += one / 4;
    }
    bench.come(Balance::Balanced);
    let until = bench.work().unwrap_err().unwrap();
    assert!(until > bench.now && until <= bench.now + one);
    bench.now += one / 4;
    bench.come(Balance::Fast);
    assert_eq!(bench.work(), Ok(2));
    bench.now += 100 * MS;
    bench.come(Balance::Balanced);
    let (runs, waited) = bench.finish();
    assert_eq!(runs, [1]);
    assert!(waited <= one, "{waited:?}");
}
