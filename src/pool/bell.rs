//! The bell that wakes workers. A thread that moves bytes rings it once a round: for all that it has
//! queued, and before it waits for more bytes. Waking a thread takes as long as half a small request does.
//!
//! Invariant: what a thread puts off is done when it parks or ends, or when it queues more later than
//! [`LONGEST`] after; a thread that never parks puts nothing off.

use std::{
    cell::RefCell,
    sync::{Arc, Condvar, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// How long a thread that has more to do leaves workers asleep.
const LONGEST: Duration = Duration::from_micros(50);

thread_local! {
    static ROUND: RefCell<Round> = const { RefCell::new(Round { parks: false, put_off: None }) };
}

/// What a thread has put off since it was last parked.
struct Round {
    /// Whether it tells when it parks.
    parks: bool,
    put_off: Option<PutOff>,
}

/// Rings when it is dropped.
struct PutOff {
    bell: Bell,
    n_jobs: usize,
    since: Instant,
}

impl Drop for PutOff {
    fn drop(&mut self) {
        self.bell.ring_now(self.n_jobs);
    }
}

/// Says that this thread is about to park: what it has put off is done, and it may put off what comes next.
pub fn before_parking() {
    ROUND.with_borrow_mut(|round| round.parks = true);
    end_round();
}

/// Does now what this thread has put off, if anything: something that takes long is to be done.
pub fn end_round() {
    drop(ROUND.with_borrow_mut(|round| round.put_off.take()));
}

/// What workers wait for. Clones are of one bell.
#[derive(Clone, Default)]
pub(super) struct Bell(Arc<Condvar>);

impl Bell {
    /// Wakes workers for so many jobs, by the end of this thread's round at the latest.
    pub(super) fn ring(&self, n_jobs: usize) {
        let late = ROUND.with_borrow_mut(|round| match &mut round.put_off {
            _ if !round.parks => Some(None),
            Some(put_off) if Arc::ptr_eq(&put_off.bell.0, &self.0) => {
                put_off.n_jobs += n_jobs;
                let is_late = put_off.since.elapsed() >= LONGEST;
                is_late.then(|| round.put_off.take())
            }
            put_off => {
                let other = put_off.replace(PutOff { bell: self.clone(), n_jobs, since: Instant::now() });
                other.map(Some)
            }
        });
        match late {
            // Outside of the round: whoever is woken may run at once.
            Some(Some(put_off)) => drop(put_off),
            Some(None) => self.ring_now(n_jobs),
            None => {}
        }
    }

    /// Wakes workers for so many jobs.
    pub(super) fn ring_now(&self, n_jobs: usize) {
        match n_jobs {
            1 => self.0.notify_one(),
            _ => self.0.notify_all(),
        }
    }

    /// Waits for the bell, or until then.
    pub(super) fn wait<'q, T>(&self, lock: MutexGuard<'q, T>, until: Option<Instant>) -> MutexGuard<'q, T> {
        match until {
            None => self.0.wait(lock).unwrap_or_else(PoisonError::into_inner),
            Some(until) => {
                let wait = until.saturating_duration_since(Instant::now()).max(Duration::from_micros(1));
                self.0.wait_timeout(lock, wait).unwrap_or_else(PoisonError::into_inner).0
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Mutex,
            atomic::{AtomicUsize, Ordering},
        },
        thread,
    };

    use tokio::runtime;

    use super::*;

    /// A worker that counts how often it is woken, and a way to wait until it sleeps.
    struct Sleeper {
        bell: Bell,
        queued: Mutex<usize>,
        woken: AtomicUsize,
    }

    impl Sleeper {
        fn new() -> Arc<Self> {
            Arc::new(Self { bell: Bell::default(), queued: Mutex::new(0), woken: AtomicUsize::new(0) })
        }

        /// Takes `n` jobs, then ends.
        fn take(self: &Arc<Self>, n: usize) -> thread::JoinHandle<()> {
            let sleeper = Arc::clone(self);
            let work = move || {
                let mut queued = sleeper.queued.lock().unwrap();
                while *queued < n {
                    queued = sleeper.bell.wait(queued, None);
                    sleeper.woken.fetch_add(1, Ordering::Relaxed);
                }
            };
            thread::Builder::new().name("sleeper".to_owned()).spawn(work).unwrap()
        }

        fn queue(&self) {
            *self.queued.lock().unwrap() += 1;
            self.bell.ring(1);
        }
    }

    fn runtime() -> runtime::Runtime {
        runtime::Builder::new_multi_thread().worker_threads(1).on_thread_park(before_parking).build().unwrap()
    }

    #[test]
    fn a_thread_that_never_parks_rings_at_once() {
        let sleeper = Sleeper::new();
        let worker = sleeper.take(3);
        (0..3).for_each(|_| sleeper.queue());
        worker.join().unwrap();
    }

    #[test]
    fn what_was_put_off_is_done_when_the_thread_parks() {
        let sleeper = Sleeper::new();
        let runtime = runtime();
        for round in 1..200 {
            let worker = sleeper.take(3 * round);
            let queue = Arc::clone(&sleeper);
            runtime.block_on(async {
                tokio::spawn(async move { (0..3).for_each(|_| queue.queue()) }).await.unwrap();
            });
            // Nobody rings any more: a wake-up that was lost is waited for without end.
            worker.join().unwrap();
        }
    }

    #[test]
    fn what_was_put_off_too_long_is_done_with_the_next_job() {
        let sleeper = Sleeper::new();
        let runtime = runtime();
        // After its first round the thread puts off.
        runtime.block_on(async { tokio::spawn(tokio::task::yield_now()).await.unwrap() });
        thread::sleep(Duration::from_millis(20));
        let worker = sleeper.take(2);
        let queue = Arc::clone(&sleeper);
        let busy = async move {
            queue.queue();
            thread::sleep(2 * LONGEST);
            queue.queue();
            // The round has not ended: it was the second job that rang.
            worker.join().unwrap();
        };
        runtime.block_on(async { tokio::spawn(busy).await.unwrap() });
    }

    #[test]
    fn a_round_that_is_ended_rings() {
        let sleeper = Sleeper::new();
        let runtime = runtime();
        runtime.block_on(async { tokio::spawn(tokio::task::yield_now()).await.unwrap() });
        thread::sleep(Duration::from_millis(20));
        let worker = sleeper.take(1);
        let queue = Arc::clone(&sleeper);
        let busy = async move {
            queue.queue();
            end_round();
            worker.join().unwrap();
        };
        runtime.block_on(async { tokio::spawn(busy).await.unwrap() });
        assert!(sleeper.woken.load(Ordering::Relaxed) <= 1);
    }
}
