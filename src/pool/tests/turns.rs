//! Who gets a worker: dear rows, rows of many, and those who come meanwhile; the queue with a clock that tests turn.

use tokio::sync::oneshot;

use super::*;
use crate::{
    pool::{
        arena::Key,
        demand::{Ask, Burden},
        errand::{Done, Errand},
        job::{Caller, Job, Matter, Terms},
        model::Waiting,
        place::{Place, Room},
        queue::Queue,
    },
    task::Workload,
};

const MS: Duration = Duration::from_millis(1);

/// A queue whose workers do what they are told when the test says so.
struct Bench {
    queue: Queue,
    lane: Key,
    model: Arc<Model>,
    room: Arc<Room>,
    now: Instant,
    replies: Vec<oneshot::Receiver<Result<Answered, Error>>>,
}

/// Rows of one request: their names, when they are due, and what each costs.
struct Rows<'n> {
    names: &'n [&'n str],
    due: Duration,
    cost: Duration,
    is_unknown: bool,
}

impl Bench {
    fn new(pool: &ModelPool, workers: usize) -> Self {
        let (mut queue, model) = (Queue::new(workers, Rule::Measured), Arc::clone(&pool.models()[0]));
        Self {
            lane: queue.add(Arc::clone(model.costs())),
            queue,
            model,
            room: Arc::new(Room::new(1000, 1000)),
            now: Instant::now(),
            replies: Vec::new(),
        }
    }

    fn come(&mut self, rows: Rows<'_>) {
        let Rows { names, due, cost, is_unknown } = rows;
        let is_dear = cost > 50 * MS;
        let burden = if is_dear { Burden::Heavy } else { Burden::Light };
        let ask = Ask { due: self.now + due, whole: cost, longest: cost, company: Duration::ZERO, burden };
        self.queue.forecast(ask, Class::Interactive, self.now);
        let mut jobs = Vec::new();
        for name in names {
            let (sender, receiver) = oneshot::channel();
            self.replies.push(receiver);
            jobs.push(Job {
                matter: Matter::Input { bucket: Bucket::Sure(1), input: Input::Text((*name).to_owned()) },
                caller: Caller {
                    arrived: self.now,
                    queued: self.now,
                    deadline: due,
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
                    balance: Balance::Fast,
                    bytes: 1,
                    workload: Workload::of_bytes(1),
                    handling: cost,
                    network: Duration::ZERO,
                    charge: cost,
                    burden,
                    is_dear,
                    is_unknown,
                    request: 0,
                },
            });
        }
        self.queue.push(self.lane, jobs);
    }

    /// What a worker that has ended what it did is told to run: the first of its rows.
    fn next(&mut self, worker: usize) -> Option<String> {
        self.queue.finish(worker, Done::Nothing, self.now);
        let (errand, ended) = self.queue.take(worker, self.now);
        assert!(ended.is_empty());
        match errand {
            Errand::Run(batch) => match &batch.jobs[0].matter {
                Matter::Input { input: Input::Text(name), .. } => Some(name.clone()),
                _ => panic!("no text"),
            },
            Errand::Rest(_) => None,
            _ => panic!("there is nothing of that kind"),
        }
    }
}

fn dear<'n>(names: &'n [&'n str]) -> Rows<'n> {
    Rows { names, due: 60_000 * MS, cost: 400 * MS, is_unknown: false }
}

fn text<'n>(names: &'n [&'n str]) -> Rows<'n> {
    Rows { names, due: 100 * MS, cost: MS, is_unknown: false }
}

#[tokio::test]
async fn dear_rows_never_hold_all_workers_while_others_come() {
    let (pool, _gate) = pool(ROOM).await;
    let mut bench = Bench::new(&pool, 2);
    bench.come(text(&["hello"]));
    assert_eq!(bench.next(0).unwrap(), "hello");
    bench.come(dear(&["a", "b", "c"]));
    assert_eq!(bench.next(0).unwrap(), "a");
    assert_eq!(bench.next(1), None, "it is left to others");
    for _ in 0..10 {
        bench.now += 30 * MS;
        bench.come(text(&["again"]));
        assert_eq!(bench.next(1).unwrap(), "again");
        assert_eq!(bench.next(1), None);
    }
    bench.now += Duration::from_secs(2);
    assert_eq!(bench.next(1).unwrap(), "b", "nobody else comes");
    assert_eq!(bench.next(0).unwrap(), "c", "and no throughput is lost");
}

#[tokio::test]
async fn dear_rows_that_are_left_to_others_are_owed_no_more_once_they_are_late() {
    let (pool, _gate) = pool(ROOM).await;
    let mut bench = Bench::new(&pool, 2);
    bench.come(Rows { due: 1000 * MS, ..dear(&["a", "b"]) });
    assert_eq!(bench.next(0).unwrap(), "a");
    bench.come(text(&["hello"]));
    assert_eq!(bench.next(1).unwrap(), "hello");
    bench.queue.finish(1, Done::Nothing, bench.now);
    let (errand, _) = bench.queue.take(1, bench.now);
    let Errand::Rest(Some(until)) = errand else { panic!("the worker rests for good") };
    assert!(until <= bench.now + 1000 * MS);
    // The first takes for ever, and nobody is admitted who would have a worker look.
    let (_, ended) = bench.queue.take(1, until);
    assert_eq!(ended.len(), 1, "the other is late");
    assert!(bench.queue.is_empty());
}

#[tokio::test]
async fn rows_of_which_nobody_knows_what_they_cost_never_hold_all_workers() {
    let (pool, _gate) = pool(ROOM).await;
    let mut bench = Bench::new(&pool, 2);
    bench.come(Rows { is_unknown: true, ..dear(&["a", "b", "c"]) });
    assert_eq!(bench.next(0).unwrap(), "a");
    assert_eq!(bench.next(1), None, "though nobody else is there");
    bench.model.costs().handled(Workload::of_bytes(1), 1, 400 * MS, Duration::ZERO);
    assert_eq!(bench.next(1).unwrap(), "b", "until one of them is answered");
}

#[tokio::test]
async fn a_single_worker_takes_others_between_two_dear_rows() {
    let (pool, _gate) = pool(ROOM).await;
    let mut bench = Bench::new(&pool, 1);
    bench.come(Rows { due: 5000 * MS, ..dear(&["a", "b"]) });
    assert_eq!(bench.next(0).unwrap(), "a");
    bench.come(Rows { due: 9000 * MS, ..text(&["later"]) });
    assert_eq!(bench.next(0).unwrap(), "later", "though it is due after the other dear row");
    assert_eq!(bench.next(0).unwrap(), "b");
}

#[tokio::test]
async fn rows_of_many_take_turns_with_those_who_come_after() {
    let (pool, _gate) = pool(ROOM).await;
    for workers in [1, 2] {
        let mut bench = Bench::new(&pool, workers);
        let names = ["a"; 40];
        bench.come(Rows { due: 10_000 * MS, cost: 5 * MS, ..text(&names) });
        assert_eq!(bench.next(0).unwrap(), "a");
        bench.now += MS;
        bench.come(Rows { due: 10_000 * MS, ..text(&["single"]) });
        let last = workers - 1;
        assert_eq!(bench.next(last).unwrap(), "single", "{workers} workers");
        assert_eq!(bench.next(last).unwrap(), "a", "{workers} workers: nobody waits any more");
    }
}

#[tokio::test]
async fn nobody_goes_first_where_that_breaks_a_promise() {
    let (pool, _gate) = pool(ROOM).await;
    let mut bench = Bench::new(&pool, 1);
    bench.come(Rows { due: 1000 * MS, ..dear(&["a", "b"]) });
    assert_eq!(bench.next(0).unwrap(), "a");
    bench.now += 400 * MS;
    // 600 ms are left for 400: with its reserve there is no time for anybody else.
    bench.come(Rows { due: 9000 * MS, cost: 10 * MS, ..text(&["later"]) });
    assert_eq!(bench.next(0).unwrap(), "b");
    assert_eq!(bench.next(0).unwrap(), "later");
}
