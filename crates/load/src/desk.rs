//! Where callers get what to send next.
//!
//! Invariant: a request that was handed in is taken by exactly one caller, or handed back at the end.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::Semaphore;

/// A request to send.
#[derive(Debug, Clone, Copy)]
pub(super) struct Job {
    /// When it was meant to be sent.
    pub(super) intended: Instant,
    /// Its number since the start.
    pub(super) number: u64,
}

/// Requests of an open loop that wait for a free caller.
pub(super) struct Desk {
    state: Mutex<State>,
    /// A permit for each waiting request, and one for each caller at the end.
    waiting: Semaphore,
}

struct State {
    waiting: VecDeque<Job>,
    /// Callers with nothing to do.
    n_idle: usize,
    n_callers: usize,
    most_callers: usize,
}

/// Whether a request that was handed in needs another caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Staff {
    Enough,
    OneMore,
}

impl Desk {
    /// Makes a desk for at most so many callers.
    pub(super) fn new(most_callers: usize) -> Self {
        let state = State { waiting: VecDeque::new(), n_idle: 0, n_callers: 0, most_callers };
        Self { state: Mutex::new(state), waiting: Semaphore::new(0) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics with the lock held, so what it guards is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands in a request. The caller that it may need counts as free from now on.
    pub(super) fn put(&self, job: Job) -> Staff {
        let mut state = self.state();
        state.waiting.push_back(job);
        let staff = if state.waiting.len() > state.n_idle && state.n_callers < state.most_callers {
            state.n_callers += 1;
            state.n_idle += 1;
            Staff::OneMore
        } else {
            Staff::Enough
        };
        drop(state);
        self.waiting.add_permits(1);
        staff
    }

    /// Takes the oldest request, waiting for one; `None` at the end.
    pub(super) async fn take(&self) -> Option<Job> {
        // The semaphore is never closed, so this waits for a permit.
        self.waiting.acquire().await.ok()?.forget();
        let mut state = self.state();
        let job = state.waiting.pop_front();
        state.n_idle -= usize::from(job.is_some());
        job
    }

    /// Says that a caller is free again.
    pub(super) fn is_free(&self) {
        self.state().n_idle += 1;
    }

    /// Lets callers go when nothing waits any more.
    pub(super) fn end(&self) {
        let n_callers = self.state().n_callers;
        self.waiting.add_permits(n_callers);
    }

    /// Ends, and hands back the latest requests that no free caller is there for.
    pub(super) fn close(&self) -> Vec<Job> {
        let mut state = self.state();
        let kept = state.n_idle.min(state.waiting.len());
        let left = state.waiting.split_off(kept);
        drop(state);
        self.end();
        left.into()
    }

    /// The most callers that there were at once.
    pub(super) fn n_callers(&self) -> usize {
        self.state().n_callers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(number: u64) -> Job {
        Job { intended: Instant::now(), number }
    }

    fn numbers(jobs: &[Job]) -> Vec<u64> {
        jobs.iter().map(|job| job.number).collect()
    }

    #[tokio::test(flavor = "current_thread")]
    async fn callers_are_hired_as_requests_need_them_up_to_the_limit() {
        let desk = Desk::new(2);
        assert_eq!(desk.put(job(0)), Staff::OneMore);
        assert_eq!(desk.take().await.map(|job| job.number), Some(0));
        desk.is_free();
        assert_eq!(desk.put(job(1)), Staff::Enough, "one is free");
        assert_eq!(desk.put(job(2)), Staff::OneMore);
        assert_eq!(desk.put(job(3)), Staff::Enough, "there are no more");
        assert_eq!(desk.n_callers(), 2);
        assert_eq!(desk.take().await.map(|job| job.number), Some(1), "the oldest first");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn at_the_end_each_request_is_taken_or_handed_back() {
        let desk = Desk::new(2);
        for number in 0..5 {
            desk.put(job(number));
        }
        assert_eq!(desk.take().await.map(|job| job.number), Some(0));
        // One of two callers is free, so one more request is taken and three are handed back.
        assert_eq!(numbers(&desk.close()), [2, 3, 4]);
        assert_eq!(desk.take().await.map(|job| job.number), Some(1));
        assert!(desk.take().await.is_none());
        assert!(desk.take().await.is_none());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn an_end_without_hurry_leaves_nothing_waiting() {
        let desk = Desk::new(1);
        for number in 0..3 {
            desk.put(job(number));
        }
        desk.end();
        for number in 0..3 {
            assert_eq!(desk.take().await.map(|job| job.number), Some(number));
            desk.is_free();
        }
        assert!(desk.take().await.is_none());
    }
}
