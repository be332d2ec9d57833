//! The pool against an engine that a test can hold and release. No test sleeps.

mod lifecycle;
mod memory;
mod scheduling;

use std::{
    sync::{Condvar, Mutex},
    time::{Duration, Instant},
};

use super::*;
use crate::{
    engine::{Dim, EngineError, Port, Session, Signature},
    manifest::Balance,
    tasks::{
        About, Context, Input, Output, Prepared, ProfileInput, Ranked, RequestSize, Scored, ShapeClass,
        Supported, Truncated, descriptor_of,
    },
    tensor::{DType, Tensor, Tensors},
};

/// An engine that doubles its input, records its runs, and stops at a gate.
#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    held: bool,
    entered: usize,
    runs: Vec<Vec<f32>>,
}

impl Gate {
    /// Stops runs at the gate, at the latest until what it answers is dropped: a test that fails ends.
    fn hold(self: &Arc<Self>) -> Held {
        self.state.lock().unwrap().held = true;
        Held(Arc::clone(self))
    }

    fn release(&self) {
        self.state.lock().unwrap().held = false;
        self.changed.notify_all();
    }

    /// Waits until `n` runs have come to the gate.
    fn wait_for(&self, n: usize) {
        let mut state = self.state.lock().unwrap();
        while state.entered < n {
            state = self.changed.wait(state).unwrap();
        }
    }

    fn enter(&self, rows: &[f32]) {
        let mut state = self.state.lock().unwrap();
        state.entered += 1;
        state.runs.push(rows.to_vec());
        self.changed.notify_all();
        while state.held {
            state = self.changed.wait(state).unwrap();
        }
    }

    fn runs(&self) -> Vec<Vec<f32>> {
        self.state.lock().unwrap().runs.clone()
    }
}

struct Held(Arc<Gate>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.release();
    }
}

/// Rows with this value make a run panic.
const PANIC: f32 = 666.0;
/// Rows with this value make a run fail.
const FAIL: f32 = -13.0;

/// Runs of one warm-up: four for each of two shapes in runs of 1, 2, 4 and 8 rows.
const WARM_UP_RUNS: usize = 32;

/// CPU time that a run takes however many rows it has, so that rows gain by sharing one. By the wall clock a
/// run that was interrupted would look cheap.
const RUN: Duration = Duration::from_micros(300);

struct Doubler {
    gate: Arc<Gate>,
    signature: Signature,
}

impl Engine for Doubler {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn open(&self) -> Result<Box<dyn Session>, EngineError> {
        Ok(Box::new(DoublerSession { gate: Arc::clone(&self.gate) }))
    }
}

struct DoublerSession {
    gate: Arc<Gate>,
}

impl Session for DoublerSession {
    fn run(&mut self, batch: Tensors) -> Result<Tensors, EngineError> {
        let meter = meter::Meter::start();
        while meter.read().cpu < RUN {
            std::hint::spin_loop();
        }
        let rows = batch[0].as_slice::<f32>().unwrap();
        self.gate.enter(rows);
        assert!(!rows.contains(&PANIC), "a value that the network cannot bear");
        if rows.contains(&FAIL) {
            return Err(EngineError::Run("a value that the network refuses".to_owned()));
        }
        let doubled = rows.iter().map(|x| x * 2.0).collect();
        Ok(vec![Tensor::new::<f32>(batch[0].shape(), doubled).unwrap()])
    }
}

/// A task whose texts are numbers; a text with a comma becomes a longer row.
struct Numbers;

impl Task for Numbers {
    fn descriptor(&self) -> &'static Descriptor {
        texts()
    }

    fn shape_class(&self, _: &RequestSize) -> ShapeClass {
        ShapeClass::Likely(1)
    }

    fn preprocess(&self, input: Input) -> Result<Prepared, Error> {
        let Item::Text(text) = input.item else { return Err(Error::invalid("not a text")) };
        assert_ne!(text, "panic", "an input that the task cannot bear");
        let values: Result<Vec<f32>, _> = text.split(',').map(str::parse).collect();
        let values = values.map_err(|_| Error::invalid("not a number"))?;
        let shape = values.len();
        let row = Tensor::new::<f32>(vec![shape], values).unwrap();
        let about = About::Text { tokens: 1, truncated: Truncated::No, supported: Supported::Unsaid };
        Ok(Prepared::new(vec![row], shape, Context::new(about)))
    }

    fn postprocess(&self, outputs: Tensors, context: &Context) -> Result<Answer, Error> {
        let score = outputs[0].as_slice::<f32>().unwrap()[0];
        let scores = Ranked::from(vec![Scored::new("doubled", score)]);
        Ok(Answer { output: Output::Classes(scores), about: *context.get()? })
    }

    fn profile_inputs(&self) -> Vec<ProfileInput> {
        let zeros = |n| vec![Tensor::new::<f32>(vec![n], vec![0.0; n]).unwrap()];
        [1, 2].map(|shape| ProfileInput { shape, row: zeros(shape) }).into()
    }
}

/// A task whose name and options do not matter here.
fn texts() -> &'static Descriptor {
    descriptor_of("text-classification").unwrap()
}

fn declare(name: &str, gate: &Arc<Gate>) -> Declared {
    let port = |name: &str| Port {
        name: name.to_owned(),
        dtype: DType::F32,
        shape: vec![Dim::Free("batch".to_owned()), Dim::Fixed(1)],
        batch_axis: Some(0),
    };
    let signature = Signature { inputs: vec![port("x")], outputs: vec![port("y")] };
    let engine = Doubler { gate: Arc::clone(gate), signature };
    Declared {
        name: name.parse().unwrap(),
        version: Version(1),
        description: String::new(),
        licence: String::new(),
        batch: BatchSpec { max_rows: 8, ..BatchSpec::default() },
        task: Some(texts()),
        load: Box::new(|| Ok(Loaded { engine: Arc::new(engine), task: Arc::new(Numbers), precision: None })),
    }
}

const ROOM: PoolOptions = PoolOptions { workers: 1, queue_rows: 64, queue_bytes: 4096 };

/// A pool of one worker and one model, warm, with its gate.
async fn pool(options: PoolOptions) -> (ModelPool, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let pool = ModelPool::start(&options, vec![declare("double", &gate)], &Metrics::new()).unwrap();
    pool.ready().await.unwrap();
    gate.wait_for(WARM_UP_RUNS);
    let mut state = gate.state.lock().unwrap();
    (state.entered, state.runs) = (0, Vec::new());
    drop(state);
    (pool, gate)
}

fn claim(deadline: Duration) -> Claim {
    let (class, balance) = (Class::Interactive, Balance::Fast);
    Claim {
        arrived: Instant::now(),
        deadline,
        size: RequestSize::default(),
        after: Duration::ZERO,
        class,
        balance,
    }
}

fn reserve(pool: &ModelPool) -> Result<Reservation, Error> {
    pool.reserve(&pool.models()[0], claim(Duration::from_secs(60)))
}

fn submit(pool: &ModelPool, text: &str) -> Reply {
    reserve(pool).unwrap().submit(vec![Input::text(text)]).unwrap().remove(0)
}

fn number(answered: Result<Answered, Error>) -> f32 {
    answered.unwrap().answer.output.scores(&["doubled".into()])[0]
}

#[tokio::test]
async fn each_caller_gets_the_answer_to_their_own_input() {
    let (pool, _gate) = pool(PoolOptions { workers: 3, ..ROOM }).await;
    let replies: Vec<Reply> = (0..50).map(|i| submit(&pool, &i.to_string())).collect();
    for (i, reply) in replies.into_iter().enumerate() {
        assert_eq!(number(reply.await), i as f32 * 2.0);
    }
}

#[tokio::test]
async fn what_waits_behind_a_run_shares_the_next_one() {
    let (pool, gate) = pool(ROOM).await;
    let _held = gate.hold();
    let first = submit(&pool, "1");
    gate.wait_for(1);
    let others: Vec<Reply> = (2..=9).map(|i| submit(&pool, &i.to_string())).collect();
    gate.release();
    assert_eq!(number(first.await), 2.0);
    for (i, reply) in others.into_iter().enumerate() {
        let answered = reply.await.unwrap();
        assert_eq!(answered.cost.batch, 8);
        assert_eq!(number(Ok(answered)), (i + 2) as f32 * 2.0);
    }
    assert_eq!(gate.runs(), [vec![1.0], (2..=9).map(|i| i as f32).collect()]);
}

#[tokio::test]
async fn rows_of_another_shape_run_apart() {
    let (pool, gate) = pool(ROOM).await;
    let texts = ["1", "2,3", "4", "5,6"].map(Input::text);
    let replies = reserve(&pool).unwrap().submit(texts.to_vec()).unwrap();
    let mut answers = Vec::new();
    for reply in replies {
        answers.push(number(reply.await));
    }
    assert_eq!(answers, [2.0, 4.0, 8.0, 10.0]);
    assert_eq!(gate.runs(), [vec![1.0, 4.0], vec![2.0, 3.0, 5.0, 6.0]]);
}

#[tokio::test]
async fn a_guilty_row_costs_only_its_own_caller() {
    for guilty in [PANIC, FAIL] {
        let (pool, gate) = pool(ROOM).await;
        let inputs = [1.0, guilty, 3.0].map(|x| Input::text(x.to_string()));
        let mut replies = reserve(&pool).unwrap().submit(inputs.to_vec()).unwrap().into_iter();
        assert_eq!(number(replies.next().unwrap().await), 2.0);
        assert!(matches!(replies.next().unwrap().await, Err(Error::Internal(_))));
        assert_eq!(number(replies.next().unwrap().await), 6.0);
        assert_eq!(gate.runs().len(), 4, "once together, then one by one");
        assert_eq!(number(submit(&pool, "4").await), 8.0, "the worker lives on");
    }
}

#[tokio::test]
async fn an_input_that_cannot_be_prepared_is_answered_and_never_run() {
    let (pool, gate) = pool(ROOM).await;
    assert!(matches!(submit(&pool, "panic").await, Err(Error::Internal(_))));
    assert_eq!(submit(&pool, "x").await.unwrap_err(), Error::invalid("not a number"));
    assert!(gate.runs().is_empty());
    assert_eq!(number(submit(&pool, "4").await), 8.0);
}

#[tokio::test]
async fn a_caller_who_has_gone_costs_no_core_and_no_room() {
    let (pool, gate) = pool(PoolOptions { queue_rows: 2, ..ROOM }).await;
    let _held = gate.hold();
    let first = submit(&pool, "1");
    gate.wait_for(1);
    drop(submit(&pool, "2"));
    let third = submit(&pool, "3");
    gate.release();
    assert_eq!(number(first.await), 2.0);
    assert_eq!(number(third.await), 6.0);
    assert_eq!(gate.runs(), [vec![1.0], vec![3.0]]);
}

#[tokio::test]
async fn a_full_queue_refuses_and_a_dropped_slot_gives_its_place_back() {
    let (pool, _gate) = pool(PoolOptions { queue_rows: 2, ..ROOM }).await;
    let first = reserve(&pool).unwrap();
    let _second = reserve(&pool).unwrap();
    let Err(Error::Overloaded { reason, .. }) = reserve(&pool) else { panic!("room for a third") };
    assert_eq!(reason, "the queue is full: no more inputs can wait");
    drop(first);
    let third = reserve(&pool).unwrap();
    let two = vec![Input::text("1"), Input::text("2")];
    assert!(matches!(third.submit(two), Err(Error::Overloaded { .. })), "all or none");
    assert!(reserve(&pool).is_ok(), "a refused request leaves nothing behind");
}

#[tokio::test]
async fn bytes_are_bounded_while_a_body_arrives() {
    let (pool, _gate) = pool(PoolOptions { queue_bytes: 100, ..ROOM }).await;
    let mut reservation = reserve(&pool).unwrap();
    reservation.grow(60).unwrap();
    assert!(matches!(reservation.grow(60), Err(Error::Overloaded { .. })));
    reservation.grow(40).unwrap();
    let declared = Claim { size: RequestSize::of(1), ..claim(Duration::from_secs(60)) };
    assert!(matches!(pool.reserve(&pool.models()[0], declared.clone()), Err(Error::Overloaded { .. })));
    drop(reservation);
    let all = Claim { size: RequestSize::of(100), ..declared };
    let _slow = pool.reserve(&pool.models()[0], all.clone()).unwrap();
    assert!(pool.reserve(&pool.models()[0], all.clone()).is_ok(), "what has not arrived holds no room");
    assert!(pool.reserve(&pool.models()[0], Claim { size: RequestSize::of(101), ..all }).is_err());
}

#[tokio::test]
async fn one_model_cannot_take_all_the_room() {
    let gate = Arc::new(Gate::default());
    let models = vec![declare("a", &gate), declare("b", &gate)];
    let options = PoolOptions { queue_rows: 4, ..ROOM };
    let pool = ModelPool::start(&options, models, &Metrics::new()).unwrap();
    pool.ready().await.unwrap();
    let on = |model: usize| pool.reserve(&pool.models()[model], claim(Duration::from_secs(60)));
    let _three = [on(0).unwrap(), on(0).unwrap(), on(0).unwrap()];
    assert!(on(0).is_err());
    assert!(on(1).is_ok());
}

#[tokio::test]
async fn what_is_queued_when_the_pool_closes_is_answered() {
    let (pool, gate) = pool(ROOM).await;
    let _held = gate.hold();
    let first = submit(&pool, "1");
    gate.wait_for(1);
    let queued = submit(&pool, "2");
    let late = reserve(&pool).unwrap();
    pool.close();
    assert!(matches!(reserve(&pool), Err(Error::Unavailable { .. })));
    assert!(matches!(late.submit(vec![Input::text("3")]), Err(Error::Unavailable { .. })));
    gate.release();
    drop(pool);
    assert_eq!((number(first.await), number(queued.await)), (2.0, 4.0));
}

#[tokio::test]
async fn a_deadline_that_passed_in_the_queue_is_answered_and_never_run() {
    let (pool, gate) = pool(ROOM).await;
    let _held = gate.hold();
    let first = submit(&pool, "1");
    gate.wait_for(1);
    // The worker is late by as much as the machine is slow until here, and counts as busy for as long again.
    let (arrived, given) = (Instant::now(), Duration::from_millis(300));
    let reservation = pool.reserve(&pool.models()[0], claim(given)).unwrap();
    let late = reservation.submit(vec![Input::text("2")]).unwrap().remove(0);
    while arrived.elapsed() <= given {
        std::hint::spin_loop();
    }
    gate.release();
    assert_eq!(number(first.await), 2.0);
    assert_eq!(late.await.unwrap_err(), Error::DeadlineExceeded { deadline: given });
    assert_eq!(gate.runs(), [vec![1.0]]);
}

#[tokio::test]
async fn an_answer_that_would_come_too_late_is_refused_at_once() {
    let (pool, _gate) = pool(ROOM).await;
    let model = &pool.models()[0];
    for _ in 0..100 {
        model.costs().learn(1, 1, 1, Duration::from_secs(2));
    }
    let Err(Error::Overloaded { reason, forecast, .. }) = pool.reserve(model, claim(Duration::from_secs(1)))
    else {
        panic!("admitted")
    };
    assert!(reason.starts_with("the answer is predicted in "), "{reason}");
    assert!(reason.ends_with(" ms, after the deadline of 1000 ms"), "{reason}");
    assert!((1.9..=2.1).contains(&forecast.as_secs_f64()), "{forecast:?}");
    assert!(pool.reserve(model, claim(Duration::from_secs(3))).is_ok());
}

#[tokio::test]
async fn the_earliest_deadline_runs_first_across_models() {
    let gate = Arc::new(Gate::default());
    let models = vec![declare("a", &gate), declare("b", &gate)];
    let pool = ModelPool::start(&ROOM, models, &Metrics::new()).unwrap();
    pool.ready().await.unwrap();
    let submit = |model: usize, text: &str, seconds: u64| {
        let reservation = pool.reserve(&pool.models()[model], claim(Duration::from_secs(seconds))).unwrap();
        reservation.submit(vec![Input::text(text)]).unwrap().remove(0)
    };
    let warm = 2 * WARM_UP_RUNS;
    gate.wait_for(warm);
    let _held = gate.hold();
    let first = submit(0, "1", 60);
    gate.wait_for(warm + 1);
    let replies = [first, submit(0, "2", 50), submit(1, "3", 40), submit(0, "4", 30)];
    gate.release();
    for reply in replies {
        reply.await.unwrap();
    }
    // One model's jobs share a run, in the order of their deadlines.
    assert_eq!(gate.runs()[warm..], [vec![1.0], vec![4.0, 2.0], vec![3.0]]);
}

#[tokio::test]
async fn a_model_that_fails_to_load_is_named_and_the_others_serve() {
    for reason in ["a network of another kind", "panic"] {
        let gate = Arc::new(Gate::default());
        let mut broken = declare("broken", &gate);
        broken.load = Box::new(move || {
            assert_ne!(reason, "panic", "a loader that cannot bear its file");
            Err(reason.to_owned())
        });
        let models = vec![declare("double", &gate), broken];
        let pool = ModelPool::start(&ROOM, models, &Metrics::new()).unwrap();
        let (id, why) = pool.ready().await.unwrap_err();
        assert_eq!(id.name.as_str(), "broken");
        assert!(why.contains(if reason == "panic" { "cannot bear its file" } else { reason }), "{why}");
        let refused = pool.reserve(&pool.models()[0], claim(Duration::from_secs(1)));
        assert!(matches!(refused, Err(Error::Unavailable { .. })));
        let reservation = pool.reserve(&pool.models()[1], claim(Duration::from_secs(60))).unwrap();
        let reply = reservation.submit(vec![Input::text("21")]).unwrap().remove(0);
        assert_eq!(number(reply.await), 42.0);
    }
}

#[tokio::test]
async fn an_unknown_model_is_refused_with_the_known_ones() {
    let (pool, _gate) = pool(ROOM).await;
    let error = pool.model(&"x".repeat(1000), None).map(|_| ()).unwrap_err().to_string();
    assert!(error.ends_with("…`; the models are `double`"), "{error}");
    assert!(error.len() < 150, "{error}");
}
