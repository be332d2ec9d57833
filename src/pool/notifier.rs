//! The bell that wakes workers. A thread that moves bytes rings it once a round: for all that it has
//! queued, and before it waits for more bytes. Waking a thread takes as long as half a small request does.
//!
//! Invariant: a deferred notification has a date. It is sent when the thread parks or ends, when the thread queues
//! more later than [`LONGEST`] after, or when the task that queued the job is polled again, which is after every task
//! that was ready has had one turn. Whichever comes first sends it; a thread that never parks defers nothing by itself.

use std::{
    cell::RefCell,
    sync::{
        Arc, Condvar, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
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
    notifier: WorkerNotifier,
    since: Instant,
}

impl Drop for PutOff {
    fn drop(&mut self) {
        self.notifier.notify_deferred();
    }
}

/// Notes that this thread is about to park: what it has put off is done, and it may put off what comes next.
pub fn before_parking() {
    ROUND.with_borrow_mut(|round| round.parks = true);
    end_round();
}

/// Does now what this thread has put off, if anything: something that takes long is to be done.
pub fn end_round() {
    drop(ROUND.with_borrow_mut(|round| round.put_off.take()));
}

/// A notification that was deferred. Dropping it sends it, if nothing else has, from whichever thread: the task that
/// queued the job holds it until its next poll.
#[derive(Debug)]
pub(super) struct DeferredNotification(WorkerNotifier);

impl Drop for DeferredNotification {
    fn drop(&mut self) {
        self.0.notify_deferred();
    }
}

/// What workers wait for. Clones are of one bell.
#[derive(Clone, Debug, Default)]
pub(super) struct WorkerNotifier(Arc<Signal>);

#[derive(Debug, Default)]
struct Signal {
    condvar: Condvar,
    /// Jobs for which workers are still to be notified.
    deferred: AtomicUsize,
}

impl WorkerNotifier {
    /// Wakes workers for this number of jobs, now or by the end of this thread's round. Whoever queued the jobs keeps
    /// what is returned until its next poll, for this thread may have others to serve for ever.
    pub(super) fn notify(&self, n_jobs: usize) -> Option<DeferredNotification> {
        if !ROUND.with_borrow(|round| round.parks) {
            self.notify_now(n_jobs);
            return None;
        }
        self.0.deferred.fetch_add(n_jobs, Ordering::AcqRel);
        let due = ROUND.with_borrow_mut(|round| match &round.put_off {
            Some(put_off) if !Arc::ptr_eq(&put_off.notifier.0, &self.0) => {
                round.put_off.replace(self.put_off())
            }
            Some(put_off) if put_off.since.elapsed() >= LONGEST => round.put_off.take(),
            Some(_) => None,
            None => round.put_off.replace(self.put_off()),
        });
        // Outside of the round: whoever is woken may run at once.
        drop(due);
        (self.0.deferred.load(Ordering::Acquire) > 0).then(|| DeferredNotification(self.clone()))
    }

    fn put_off(&self) -> PutOff {
        PutOff { notifier: self.clone(), since: Instant::now() }
    }

    /// Notifies workers of all jobs for which that was deferred, by whichever thread.
    fn notify_deferred(&self) {
        match self.0.deferred.swap(0, Ordering::AcqRel) {
            0 => {}
            n_jobs => self.notify_now(n_jobs),
        }
    }

    /// Wakes workers for so many jobs.
    pub(super) fn notify_now(&self, n_jobs: usize) {
        match n_jobs {
            1 => self.0.condvar.notify_one(),
            _ => self.0.condvar.notify_all(),
        }
    }

    /// Waits for the bell, or until then.
    pub(super) fn wait<'q, T>(&self, lock: MutexGuard<'q, T>, until: Option<Instant>) -> MutexGuard<'q, T> {
        match until {
            None => self.0.condvar.wait(lock).unwrap_or_else(PoisonError::into_inner),
            Some(until) => {
                let wait = until.saturating_duration_since(Instant::now()).max(Duration::from_micros(1));
                self.0.condvar.wait_timeout(lock, wait).unwrap_or_else(PoisonError::into_inner).0
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
        notifier: WorkerNotifier,
        queued: Mutex<usize>,
        woken: AtomicUsize,
    }

    impl Sleeper {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                notifier: WorkerNotifier::default(),
                queued: Mutex::new(0),
                woken: AtomicUsize::new(0),
            })
        }

        /// Takes `n` jobs, then ends.
        fn take(self: &Arc<Self>, n: usize) -> thread::JoinHandle<()> {
            let sleeper = Arc::clone(self);
            let work = move || {
                let mut queued = sleeper.queued.lock().unwrap();
                while *queued < n {
                    queued = sleeper.notifier.wait(queued, None);
                    sleeper.woken.fetch_add(1, Ordering::Relaxed);
                }
            };
            thread::Builder::new().name("sleeper".to_owned()).spawn(work).unwrap()
        }

        #[must_use]
        fn queue(&self) -> Option<DeferredNotification> {
            *self.queued.lock().unwrap() += 1;
            self.notifier.notify(1)
        }

        /// Queues as a caller does that is never polled again.
        fn queue_and_forget(&self) {
            std::mem::forget(self.queue());
        }
    }

    fn runtime() -> runtime::Runtime {
        runtime::Builder::new_multi_thread().worker_threads(1).on_thread_park(before_parking).build().unwrap()
    }

    /// Gives the runtime back once its thread has parked: from then on it defers.
    fn has_parked(runtime: runtime::Runtime) -> runtime::Runtime {
        while !runtime.block_on(runtime.spawn(async { ROUND.with_borrow(|round| round.parks) })).unwrap() {}
        runtime
    }

    #[test]
    fn a_thread_that_never_parks_rings_at_once() {
        let sleeper = Sleeper::new();
        let worker = sleeper.take(3);
        (0..3).for_each(|_| sleeper.queue_and_forget());
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
                tokio::spawn(async move { (0..3).for_each(|_| queue.queue_and_forget()) }).await.unwrap();
            });
            // Nobody rings any more: a wake-up that was lost is waited for without end.
            worker.join().unwrap();
        }
    }

    #[test]
    fn what_was_put_off_too_long_is_done_with_the_next_job() {
        let sleeper = Sleeper::new();
        let runtime = runtime();
        let runtime = has_parked(runtime);
        let worker = sleeper.take(2);
        let queue = Arc::clone(&sleeper);
        let busy = async move {
            queue.queue_and_forget();
            let began = Instant::now();
            while began.elapsed() < LONGEST {
                std::hint::spin_loop();
            }
            queue.queue_and_forget();
            // The round has not ended: it was the second job that rang.
            worker.join().unwrap();
        };
        runtime.block_on(async { tokio::spawn(busy).await.unwrap() });
    }

    #[test]
    fn a_round_that_is_ended_rings() {
        let sleeper = Sleeper::new();
        let runtime = runtime();
        let runtime = has_parked(runtime);
        let worker = sleeper.take(1);
        let queue = Arc::clone(&sleeper);
        let busy = async move {
            queue.queue_and_forget();
            end_round();
            worker.join().unwrap();
        };
        runtime.block_on(async { tokio::spawn(busy).await.unwrap() });
        assert!(sleeper.woken.load(Ordering::Relaxed) <= 1);
    }

    /// Gives the thread to others once, as the tasks of a runtime that are always ready do.
    async fn turn() {
        let mut had = false;
        std::future::poll_fn(|context| {
            if std::mem::replace(&mut had, true) {
                return std::task::Poll::Ready(());
            }
            context.waker().wake_by_ref();
            std::task::Poll::Pending
        })
        .await;
    }

    #[test]
    fn a_thread_that_is_kept_busy_by_others_notifies_within_one_turn_of_each() {
        let sleeper = Sleeper::new();
        let runtime = runtime();
        let runtime = has_parked(runtime);
        let worker = sleeper.take(1);
        let (turns, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        // Tasks that are always ready: from the first poll on the thread never parks.
        let floods: Vec<_> = (0..3)
            .map(|_| {
                let (turns, over) = (Arc::clone(&turns), Arc::clone(&over));
                runtime.spawn(async move {
                    while over.load(Ordering::Acquire) == 0 {
                        turns.fetch_add(1, Ordering::AcqRel);
                        turn().await;
                    }
                })
            })
            .collect();
        let queue = Arc::clone(&sleeper);
        let (counted, ended) = (Arc::clone(&turns), Arc::clone(&over));
        let caller = runtime.spawn(async move {
            while counted.load(Ordering::Acquire) < 100 {
                turn().await;
            }
            let before = counted.load(Ordering::Acquire);
            let deferred = queue.queue();
            assert!(deferred.is_some(), "on this thread notifications are deferred");
            turn().await;
            drop(deferred);
            let after = counted.load(Ordering::Acquire);
            // The floods run on: it is this notification, and no parking, that wakes the worker.
            worker.join().unwrap();
            ended.store(1, Ordering::Release);
            after - before
        });
        let passed = runtime.block_on(caller).unwrap();
        assert!(passed <= 2 * floods.len(), "{passed} turns of others before workers were notified");
        for flood in floods {
            runtime.block_on(flood).unwrap();
        }
    }
}
