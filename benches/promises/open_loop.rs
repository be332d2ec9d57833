//! Callers that do not wait for one another: arrivals at random moments (Poisson), whatever the server
//! does with them, and times taken from the moment when a request was meant to leave.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use lepton_load::{Arrivals, Rate};
use rustix::time::{ClockId, clock_gettime};

use super::support::client::{Caller, Failure};

/// What is offered.
pub(crate) struct Load<'a> {
    pub(crate) address: SocketAddr,
    /// Sent one after the other.
    pub(crate) requests: &'a [Bytes],
    /// Requests a second.
    pub(crate) rate: f64,
    pub(crate) time: Duration,
    pub(crate) seed: u64,
}

/// Connections that may be open at once, well below what the server takes.
const MOST_CONNECTIONS: usize = 800;

/// How long answers that are still on their way are waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// What became of the requests.
#[derive(Default)]
pub(crate) struct Seen {
    /// By status, how long each took; 0 stands for no answer.
    pub(crate) took: BTreeMap<u16, Vec<Duration>>,
    /// Requests that were meant to leave.
    pub(crate) offered: usize,
    /// How late they left, the median.
    pub(crate) left_late: Duration,
    /// Cores that this generator used.
    pub(crate) cores: f64,
}

impl Seen {
    /// Answers with status 200 that took no longer than `limit`.
    pub(crate) fn good(&self, limit: Duration) -> usize {
        self.took.get(&200).map_or(0, |took| took.iter().filter(|took| **took <= limit).count())
    }

    /// The number of answers by status, as in `200: 17, 503: 4`.
    pub(crate) fn statuses(&self) -> String {
        let counts: Vec<String> =
            self.took.iter().map(|(status, took)| format!("{status}: {}", took.len())).collect();
        counts.join(", ")
    }
}

/// Offers `load`, on the calling thread.
pub(crate) fn offer(load: &Load) -> Result<Seen, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (began, before) = (Instant::now(), thread_time());
    let mut seen = runtime.block_on(drive(load, began))?;
    seen.cores = (thread_time() - before).as_secs_f64() / began.elapsed().as_secs_f64();
    Ok(seen)
}

async fn drive(load: &Load<'_>, began: Instant) -> Result<Seen, Failure> {
    let idle = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::new(Mutex::new(BTreeMap::<u16, Vec<Duration>>::new()));
    let rate = Rate::per_second(load.rate).ok_or("a load without a rate")?;
    let arrivals = Arrivals::Poisson { rate, seed: load.seed };
    let (mut n_open, mut late) = (0, Vec::new());
    let mut asking = tokio::task::JoinSet::new();
    let offsets = arrivals.schedule().take_while(|offset| *offset <= load.time);
    for (offset, request) in offsets.zip(load.requests.iter().cycle()) {
        let due = began + offset;
        if due > Instant::now() {
            tokio::time::sleep_until(due.into()).await;
        }
        while asking.try_join_next().is_some() {}
        let caller = lock(&idle).pop();
        let caller = match caller {
            Some(caller) => caller,
            None if n_open < MOST_CONNECTIONS => {
                n_open += 1;
                Caller::connect(load.address).await?
            }
            None => {
                lock(&seen).entry(0).or_default().push(Duration::ZERO);
                late.push(due.elapsed());
                continue;
            }
        };
        late.push(due.elapsed());
        let (request, idle, seen) = (request.clone(), Arc::clone(&idle), Arc::clone(&seen));
        asking.spawn(async move {
            let mut caller: Caller = caller;
            let status = caller.ask(&request).await.unwrap_or(0);
            lock(&seen).entry(status).or_default().push(due.elapsed());
            lock(&idle).push(caller);
        });
    }
    let all = async { while asking.join_next().await.is_some() {} };
    let rest = tokio::time::timeout(PATIENCE, all).await;
    let mut took = std::mem::take(&mut *lock(&seen));
    if rest.is_err() {
        took.entry(0).or_default().extend(std::iter::repeat_n(PATIENCE, asking.len()));
    }
    late.sort_unstable();
    let left_late = late.get(late.len() / 2).copied().unwrap_or_default();
    Ok(Seen { took, offered: late.len(), left_late, cores: 0.0 })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}
