//! Models that come and go while others are asked.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use super::*;

/// A version of `name` that multiplies by `factor`, and counts itself as alive.
fn version(name: &str, version: u32, factor: f32, alive: &Arc<AtomicUsize>) -> Declared {
    let alive = Arc::clone(alive);
    let load = move || {
        let engine = Multiplier::new(factor, alive);
        Ok(Loaded { engine: Arc::new(engine), task: Arc::new(Numbers), precision: None })
    };
    Declared { version: Version(version), load: Box::new(load), ..declare(name, &Arc::default()) }
}

struct Multiplier {
    factor: f32,
    /// Weights that a model is to give back.
    weights: Vec<f32>,
    alive: Arc<AtomicUsize>,
    signature: Signature,
}

impl Multiplier {
    fn new(factor: f32, alive: Arc<AtomicUsize>) -> Self {
        alive.fetch_add(1, Ordering::SeqCst);
        let signature = Signature { inputs: Vec::new(), outputs: Vec::new() };
        Self { factor, weights: vec![factor; 1 << 18], alive, signature }
    }
}

impl Drop for Multiplier {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Engine for Multiplier {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn open(&self) -> Result<Box<dyn Session>, EngineError> {
        self.alive.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(MultiplierSession {
            factor: self.factor,
            weights: self.weights.clone(),
            alive: Arc::clone(&self.alive),
        }))
    }
}

struct MultiplierSession {
    factor: f32,
    weights: Vec<f32>,
    alive: Arc<AtomicUsize>,
}

impl Drop for MultiplierSession {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Session for MultiplierSession {
    fn run(&mut self, batch: Tensors) -> Result<Tensors, EngineError> {
        assert_eq!(self.weights.last(), Some(&self.factor), "weights of another model");
        let rows = batch[0].as_slice::<f32>().unwrap().iter().map(|x| x * self.factor).collect();
        Ok(vec![Tensor::new::<f32>(batch[0].shape(), rows).unwrap()])
    }
}

fn id(name: &str, version: u32) -> ModelId {
    ModelId { name: name.parse().unwrap(), version: Version(version) }
}

fn on(pool: &ModelPool, model: &Arc<Model>, text: &str) -> Result<Reply, Error> {
    let reservation = pool.reserve(model, claim(Duration::from_secs(60)))?;
    Ok(reservation.submit(vec![Input::text(text)])?.remove(0))
}

async fn ask(pool: &ModelPool, name: &str, version: Option<u32>, text: &str) -> Result<f32, Error> {
    let model = pool.model(name, version.map(Version))?;
    Ok(number(on(pool, &model, text)?.await))
}

/// Waits until that many engines and sessions are alive; workers give them back when they have a moment.
fn wait_until_alive(alive: &AtomicUsize, n: usize) {
    let until = Instant::now() + Duration::from_secs(60);
    while alive.load(Ordering::SeqCst) != n {
        assert!(Instant::now() < until, "{} are alive, not {n}", alive.load(Ordering::SeqCst));
        thread::yield_now();
    }
}

#[tokio::test]
async fn versions_are_served_side_by_side_and_the_highest_answers_who_names_none() {
    let alive = Arc::default();
    let pool = ModelPool::start(&ROOM, vec![version("m", 2, 2.0, &alive)], &Metrics::new()).unwrap();
    pool.ready().await.unwrap();
    pool.load(version("m", 10, 10.0, &alive)).await.unwrap();
    pool.load(version("m", 3, 3.0, &alive)).await.unwrap();
    assert_eq!(ask(&pool, "m", None, "1").await, Ok(10.0));
    for of in [2, 3, 10] {
        assert_eq!(ask(&pool, "m", Some(of), "1").await, Ok(of as f32));
    }
    let error = ask(&pool, "m", Some(4), "1").await.unwrap_err();
    insta::assert_snapshot!(error.to_string(), @"no model is called `m/4`; the models are `m/2`, `m/3`, `m/10`");
    assert_eq!(pool.versions(&"m".parse().unwrap()), [2, 3, 10].map(Version));
    pool.unload(&id("m", 10)).unwrap();
    assert_eq!(ask(&pool, "m", None, "1").await, Ok(3.0));
}

#[tokio::test]
async fn what_an_unloaded_model_has_accepted_is_answered_and_nobody_else_finds_it() {
    let (pool, gate) = pool(ROOM).await;
    let _held = gate.hold();
    let running = submit(&pool, "1");
    gate.wait_for(1);
    let queued = submit(&pool, "2");
    let reserved = reserve(&pool).unwrap();
    let found = pool.model("double", None).unwrap();
    pool.unload(&id("double", 1)).unwrap();
    let refused = ask(&pool, "double", None, "3").await;
    assert!(matches!(refused, Err(Error::ModelNotFound { .. })), "{refused:?}");
    assert!(matches!(pool.unload(&id("double", 1)), Err(Error::ModelNotFound { .. })));
    assert_eq!(found.state(), State::Unloading);
    let reserved = reserved.submit(vec![Input::text("4")]).unwrap().remove(0);
    let late = on(&pool, &found, "5").unwrap();
    drop(found);
    gate.release();
    assert_eq!(number(running.await), 2.0);
    assert_eq!(number(queued.await), 4.0);
    assert_eq!(number(reserved.await), 8.0);
    assert_eq!(number(late.await), 10.0, "who found it before may use it");
    let until = Instant::now() + Duration::from_secs(60);
    while pool.shared.n_queues() > 0 {
        assert!(Instant::now() < until, "its queue is still there");
        thread::yield_now();
    }
    assert_eq!(pool.shared.room().taken(), (0, 0));
}

#[tokio::test]
async fn a_load_that_fails_leaves_the_old_version_and_says_why() {
    let (alive, metrics) = (Arc::default(), Metrics::new());
    let pool = ModelPool::start(&ROOM, vec![version("m", 1, 2.0, &alive)], &metrics).unwrap();
    pool.ready().await.unwrap();
    let broken = |of, why: &'static str| {
        let mut broken = version("m", of, 9.0, &alive);
        let load = std::mem::replace(&mut broken.load, Box::new(|| Err(String::new())));
        broken.load = Box::new(move || match why {
            "panic" => panic!("a loader that cannot bear its file"),
            "warm-up" => load().map(|loaded| Loaded { task: Arc::new(Unbearable), ..loaded }),
            why => Err(why.to_owned()),
        });
        broken
    };
    for (of, why) in [(2, "no such operator"), (2, "panic"), (2, "warm-up"), (1, "a broken file")] {
        let error = pool.replace(broken(of, why)).await.map(|_| ()).unwrap_err();
        let ModelLoadError::Failed { id: failed, reason } = &error else { panic!("{error}") };
        assert_eq!(*failed, id("m", of));
        let expected = match why {
            "panic" => "cannot bear its file",
            "warm-up" => "the network panicked",
            why => why,
        };
        assert!(reason.contains(expected), "{reason}");
        assert_eq!(ask(&pool, "m", None, "21").await, Ok(42.0), "the old one serves");
    }
    assert!(matches!(pool.model("m", Some(Version(2))).unwrap().state(), State::Failed(_)));
    assert_eq!(pool.versions(&"m".parse().unwrap()), [Version(1)]);
    pool.unload(&id("m", 2)).unwrap();
    wait_until_alive(&alive, 2);
    // A worker drops what a queue held before the queue itself.
    let until = Instant::now() + Duration::from_secs(60);
    while pool.shared.n_queues() != 1 {
        assert!(Instant::now() < until, "{} queues are left", pool.shared.n_queues());
        thread::yield_now();
    }
    let text = metrics.encode();
    assert!(text.contains("version=\"1\"") && !text.contains("version=\"2\""), "{text}");
}

/// A task whose sample no network bears: its row has no numbers.
struct Unbearable;

impl Task for Unbearable {
    fn descriptor(&self) -> &'static Descriptor {
        texts()
    }

    fn shape_class(&self, size: &RequestSize) -> ShapeClass {
        Numbers.shape_class(size)
    }

    fn preprocess(&self, input: Input) -> Result<Prepared, Error> {
        Numbers.preprocess(input)
    }

    fn postprocess(&self, outputs: Tensors, context: &Context) -> Result<Answer, Error> {
        Numbers.postprocess(outputs, context)
    }

    fn profile_inputs(&self) -> Vec<ProfileInput> {
        let row = vec![Tensor::new::<i64>(vec![1], vec![1]).unwrap()];
        vec![ProfileInput { shape: 1, row }]
    }
}

#[tokio::test]
async fn a_version_is_loaded_once_at_a_time_and_may_be_unloaded_while_it_loads() {
    let alive = Arc::default();
    let pool = ModelPool::start(&ROOM, vec![version("m", 1, 1.0, &alive)], &Metrics::new()).unwrap();
    pool.ready().await.unwrap();
    let (begin, begun) = std::sync::mpsc::channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let mut slow = version("m", 2, 2.0, &alive);
    let load = std::mem::replace(&mut slow.load, Box::new(|| Err(String::new())));
    slow.load = Box::new(move || {
        begin.send(()).unwrap();
        ended.recv().unwrap();
        load()
    });
    let loading = pool.load(slow);
    let meanwhile = async {
        begun.recv().unwrap();
        let again = pool.load(version("m", 2, 2.0, &alive)).await;
        assert_eq!(again.map(|_| ()).unwrap_err(), ModelLoadError::Busy(id("m", 2)));
        assert_eq!(ask(&pool, "m", None, "3").await, Ok(3.0), "the old one serves while the new one is read");
        let refused = ask(&pool, "m", Some(2), "3").await;
        assert!(matches!(refused, Err(Error::Unavailable { .. })), "{refused:?}");
        pool.unload(&id("m", 2)).unwrap();
        end.send(()).unwrap();
    };
    let (loaded, ()) = tokio::join!(loading, meanwhile);
    assert_eq!(loaded.map(|_| ()).unwrap_err(), ModelLoadError::Unloaded(id("m", 2)));
    wait_until_alive(&alive, 2);
    assert_eq!(ask(&pool, "m", None, "3").await, Ok(3.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_or_answered_by_half_a_model_while_versions_are_replaced() {
    let alive = Arc::default();
    let options = PoolOptions { workers: 2, queue_rows: 1000, queue_bytes: 1 << 20 };
    let pool = ModelPool::start(&options, vec![version("m", 1, 1.0, &alive)], &Metrics::new()).unwrap();
    pool.ready().await.unwrap();
    let pool = Arc::new(pool);
    let (over, newest) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(1)));
    let callers: Vec<_> = (1..=6)
        .map(|caller| {
            let (pool, over, newest) = (Arc::clone(&pool), Arc::clone(&over), Arc::clone(&newest));
            tokio::spawn(async move {
                let mut n_answered = 0;
                while !over.load(Ordering::SeqCst) {
                    // Whatever was ready before the request came may answer it, and nothing older.
                    let oldest = newest.load(Ordering::SeqCst);
                    let model = pool.model("m", None).unwrap();
                    let version = model.version().0;
                    assert!(version as usize >= oldest, "{version} after {oldest}");
                    let answer = number(on(&pool, &model, &caller.to_string()).unwrap().await);
                    assert_eq!(answer, (caller * version) as f32);
                    n_answered += 1;
                }
                n_answered
            })
        })
        .collect();
    for next in 2..=12 {
        pool.replace(version("m", next, next as f32, &alive)).await.unwrap();
        newest.store(next as usize, Ordering::SeqCst);
        assert_eq!(pool.models().len(), 1);
        // The same version again, from files that have changed.
        pool.load(version("m", next, next as f32, &alive)).await.unwrap();
    }
    over.store(true, Ordering::SeqCst);
    for caller in callers {
        assert!(caller.await.unwrap() > 0);
    }
    // One engine, and at most a session for each worker.
    let until = Instant::now() + Duration::from_secs(60);
    while alive.load(Ordering::SeqCst) > 3 || pool.shared.n_queues() > 1 {
        assert!(Instant::now() < until, "{} are alive", alive.load(Ordering::SeqCst));
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn two_hundred_rounds_of_load_and_unload_leave_nothing_behind() {
    let (alive, metrics) = (Arc::default(), Metrics::new());
    let options = PoolOptions { workers: 2, ..ROOM };
    let pool = ModelPool::start(&options, vec![version("stays", 1, 1.0, &alive)], &metrics).unwrap();
    pool.ready().await.unwrap();
    let n_series = metrics.encode().lines().count();
    let mut models = Vec::new();
    for round in 0..200 {
        let name = format!("m{}", round % 7);
        let model = pool.load(version(&name, round, 2.0, &alive)).await.unwrap();
        models.push(Arc::downgrade(&model));
        drop(model);
        assert_eq!(ask(&pool, &name, None, "4").await, Ok(8.0));
        pool.unload(&id(&name, round)).unwrap();
        assert!(ask(&pool, &name, None, "4").await.is_err());
    }
    let until = Instant::now() + Duration::from_secs(60);
    while pool.shared.n_queues() > 1 || alive.load(Ordering::SeqCst) > 3 {
        assert!(Instant::now() < until, "{} are alive", alive.load(Ordering::SeqCst));
        thread::yield_now();
    }
    assert_eq!(metrics.encode().lines().count(), n_series);
    assert_eq!(pool.models().len(), 1);
    let n_kept = models.iter().filter(|model| model.strong_count() > 0).count();
    assert_eq!(n_kept, 0, "models that somebody still holds");
    // Places of queues are used again.
    assert!(pool.shared.n_queue_places() <= 4, "{}", pool.shared.n_queue_places());
}

#[tokio::test]
async fn a_name_may_take_all_room_once_it_is_alone_again() {
    let alive = Arc::default();
    let options = PoolOptions { queue_rows: 4, ..ROOM };
    let pool = ModelPool::start(&options, vec![version("a", 1, 1.0, &alive)], &Metrics::new()).unwrap();
    pool.ready().await.unwrap();
    let a = pool.model("a", None).unwrap();
    let all =
        || (0..4).map(|_| pool.reserve(&a, claim(Duration::from_secs(60)))).collect::<Result<Vec<_>, _>>();
    assert!(all().is_ok());
    pool.load(version("a", 2, 2.0, &alive)).await.unwrap();
    assert!(all().is_ok(), "versions of one name share");
    pool.load(version("b", 1, 1.0, &alive)).await.unwrap();
    assert!(all().is_err());
    pool.unload(&id("b", 1)).unwrap();
    assert!(all().is_ok());
}

#[tokio::test]
async fn nothing_is_loaded_once_the_pool_closes() {
    let alive = Arc::default();
    let pool = ModelPool::start(&ROOM, vec![version("m", 1, 1.0, &alive)], &Metrics::new()).unwrap();
    pool.ready().await.unwrap();
    pool.close();
    let refused = pool.load(version("m", 2, 2.0, &alive)).await;
    assert_eq!(refused.map(|_| ()).unwrap_err(), ModelLoadError::Stopping);
    drop(pool);
    assert_eq!(alive.load(Ordering::SeqCst), 0);
}
