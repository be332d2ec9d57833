//! Bodies that are on their way: how fast each comes, and which of them goes where room is short.
//!
//! Invariant: bodies that are not whole yet hold no more bytes than are theirs, whatever they declared, and each
//! comes at the lowest rate that is allowed, or ends. A body that is there at once is none of them.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Frame;
use tokio::sync::Notify;

use super::problem::Refusal;
use crate::{config::Config, error::Error};

/// Over how long the lowest rate is averaged, as Apache's mod_reqtimeout and Kestrel do it.
pub(super) const WINDOW: Duration = Duration::from_secs(5);

/// How fast what a body sent loses weight in its present rate.
const MEMORY: Duration = Duration::from_millis(250);

/// How many times as fast as another body one has to come for the other to go.
const FASTER: f64 = 2.0;

/// How often, and how long each time, a body waits for one that goes.
const MOST_ROUNDS: usize = 8;
const ROUND: Duration = Duration::from_millis(50);

/// When whoever came too slowly, or found no room, is to come again.
const RETRY: Duration = Duration::from_secs(1);

/// A frame of a body, or its end.
type Next = Option<Result<Frame<Bytes>, axum::Error>>;

/// All bodies that are on their way. Clones are of the same ones.
#[derive(Clone)]
pub(super) struct Uploads(Arc<Shared>);

struct Shared {
    /// The bytes that they may hold together.
    most: usize,
    /// The bytes a second at which each has to come; 0 where it may come as it likes.
    rate: u64,
    on_their_way: Mutex<OnTheirWay>,
    /// Told when one has ended.
    ended: Notify,
}

#[derive(Default)]
struct OnTheirWay {
    taken: usize,
    uploads: Vec<Arc<Progress>>,
}

/// How far one body is, as the others see it.
#[derive(Default)]
struct Progress {
    speed: Mutex<Speed>,
    is_given_up: AtomicBool,
    given_up: Notify,
}

/// Bytes a second, of late: what came is forgotten exponentially.
#[derive(Debug, Clone, Copy, Default)]
struct Speed {
    bytes_per_second: f64,
    at: Option<Instant>,
}

impl Speed {
    fn arrived(&mut self, n_bytes: usize, now: Instant) {
        self.bytes_per_second = self.per_second(now) + n_bytes as f64 / MEMORY.as_secs_f64();
        self.at = Some(now);
    }

    fn per_second(&self, now: Instant) -> f64 {
        let since = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.bytes_per_second * (-since.as_secs_f64() / MEMORY.as_secs_f64()).exp()
    }
}

impl Uploads {
    /// Bodies on their way hold at most half of the queue's bytes, and never less than one body may have.
    pub(super) fn new(config: &Config) -> Self {
        let most = (config.pool.queue_bytes.0 / 2).max(config.limits.body.0);
        Self::with(usize::try_from(most).unwrap_or(usize::MAX), config.server.body_rate.0)
    }

    pub(super) fn with(most: usize, rate: u64) -> Self {
        Self(Arc::new(Shared { most, rate, on_their_way: Mutex::default(), ended: Notify::new() }))
    }

    /// A body of which these bytes are there, and which is now waited for.
    pub(super) async fn begin(&self, n_bytes: usize) -> Result<Upload, Refusal> {
        let progress = Arc::new(Progress::default());
        self.lock().uploads.push(Arc::clone(&progress));
        let mut upload = Upload {
            uploads: self.clone(),
            progress,
            taken: 0,
            window: Instant::now() + WINDOW,
            in_window: 0,
        };
        upload.take(n_bytes, |_| Ok(())).await?;
        Ok(upload)
    }

    fn take(&self, n_bytes: usize) -> bool {
        let mut all = self.lock();
        let fits = all.taken.checked_add(n_bytes).is_some_and(|sum| sum <= self.0.most);
        if fits {
            all.taken += n_bytes;
        }
        fits
    }

    fn give_back(&self, n_bytes: usize) {
        self.lock().taken -= n_bytes;
    }

    /// Gives up the slowest upload, if `speed` is that much faster than it.
    fn give_up_slower_than(&self, speed: f64) -> bool {
        let now = Instant::now();
        let all = self.lock();
        let open = all.uploads.iter().filter(|upload| !upload.is_given_up.load(Ordering::Acquire));
        let slowest = open.map(|upload| (upload.per_second(now), upload)).min_by(|a, b| a.0.total_cmp(&b.0));
        let Some((slowest, upload)) = slowest.filter(|(slowest, _)| slowest * FASTER < speed) else {
            return false;
        };
        tracing::debug!(bytes_per_second = slowest, "the slowest body makes room for another");
        upload.is_given_up.store(true, Ordering::Release);
        upload.given_up.notify_one();
        true
    }

    fn lock(&self) -> MutexGuard<'_, OnTheirWay> {
        self.0.on_their_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress {
    fn per_second(&self, now: Instant) -> f64 {
        self.speed.lock().unwrap_or_else(PoisonError::into_inner).per_second(now)
    }
}

/// One body that is on its way. Dropping it gives back what it holds of the others' room.
pub(super) struct Upload {
    uploads: Uploads,
    progress: Arc<Progress>,
    taken: usize,
    /// When the bytes that came are next compared with the lowest rate, and how many came since the last time.
    window: Instant,
    in_window: usize,
}

impl Upload {
    /// Waits for more of `body`. Refuses it where it comes too slowly, or is given up for a faster one.
    pub(super) async fn next(&mut self, body: &mut Body) -> Result<Next, Refusal> {
        loop {
            let rate = self.uploads.0.rate;
            let too_late = async {
                match rate {
                    0 => std::future::pending().await,
                    _ => tokio::time::sleep_until(self.window.into()).await,
                }
            };
            tokio::select! {
                biased;
                () = self.progress.given_up.notified() => return Err(slowest().into()),
                next = body.frame() => return Ok(next),
                () = too_late => {
                    if (self.in_window as u64) < rate.saturating_mul(WINDOW.as_secs()) {
                        return Err(Refusal::body_too_slow(rate));
                    }
                    (self.window, self.in_window) = (self.window + WINDOW, 0);
                }
            }
        }
    }

    /// Takes room for more bytes, here and by `grow`; where there is none, a slower body has to go.
    pub(super) async fn take(
        &mut self,
        n_bytes: usize,
        mut grow: impl FnMut(usize) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let now = Instant::now();
        let speed = {
            let mut speed = self.progress.speed.lock().unwrap_or_else(PoisonError::into_inner);
            speed.arrived(n_bytes, now);
            speed.per_second(now)
        };
        self.in_window += n_bytes;
        let mut rounds = 0;
        loop {
            let refused = match self.uploads.take(n_bytes) {
                true => match grow(n_bytes) {
                    Ok(()) => {
                        self.taken += n_bytes;
                        return Ok(());
                    }
                    Err(refused) => {
                        self.uploads.give_back(n_bytes);
                        refused
                    }
                },
                false => no_room("the queue is full: no more bodies can be on their way"),
            };
            let shared = Arc::clone(&self.uploads.0);
            let mut ended = std::pin::pin!(shared.ended.notified());
            // From here on an end is not missed.
            ended.as_mut().enable();
            if rounds == MOST_ROUNDS || !self.uploads.give_up_slower_than(speed) {
                return Err(refused);
            }
            rounds += 1;
            let _ = tokio::time::timeout(ROUND, ended).await;
            // What else the other held goes right after it.
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let mut all = self.uploads.lock();
        all.taken -= self.taken;
        all.uploads.retain(|upload| !Arc::ptr_eq(upload, &self.progress));
        drop(all);
        self.uploads.0.ended.notify_waiters();
    }
}

fn slowest() -> Error {
    no_room(
        "room is short, and of the bodies on their way this one came slowest; what is left of it is not read",
    )
}

/// Refuses a body for which there is no room or memory at present.
pub(super) fn no_room(reason: &'static str) -> Error {
    Error::Overloaded { reason: reason.into(), retry_after: RETRY, forecast: RETRY }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        pin::Pin,
        task::{Context, Poll, Waker},
    };

    use axum::{body::HttpBody, http::StatusCode};

    use super::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().build().unwrap().block_on(future)
    }

    /// The bytes that bodies hold, and how many bodies there are.
    fn held(uploads: &Uploads) -> (usize, usize) {
        let all = uploads.lock();
        (all.taken, all.uploads.len())
    }

    #[test]
    fn together_they_hold_no_more_than_is_theirs_and_give_it_back() {
        run(async {
            let uploads = Uploads::with(100, 0);
            let mut first = uploads.begin(60).await.ok().unwrap();
            assert!(uploads.begin(41).await.is_err(), "the first is as fast");
            assert_eq!(held(&uploads), (60, 1));
            let refused = first.take(10, |_| Err(Error::malformed("no"))).await;
            assert_eq!(refused, Err(Error::malformed("no")));
            assert_eq!(held(&uploads), (60, 1));
            drop(first);
            assert_eq!(held(&uploads), (0, 0));
        });
    }

    #[test]
    fn the_slowest_goes_where_a_faster_one_needs_the_room() {
        run(async {
            let uploads = Uploads::with(100, 0);
            let mut stalled = uploads.begin(50).await.ok().unwrap();
            let mut slow = uploads.begin(50).await.ok().unwrap();
            // As if that had been a while ago.
            for (upload, ms) in [(&stalled, 3000), (&slow, 2000)] {
                let ago = Instant::now() - Duration::from_millis(ms);
                upload.progress.speed.lock().unwrap().at = Some(ago);
            }
            let mut silent = Body::new(Silence);
            let refused = tokio::spawn(async move {
                let refused = stalled.next(&mut silent).await.err();
                drop(stalled);
                refused
            });
            let fast = uploads.begin(50).await.ok().unwrap();
            assert_eq!(refused.await.unwrap().unwrap().kind().status, StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(held(&uploads), (100, 2));
            assert!(slow.take(1, |_| Ok(())).await.is_err(), "the faster one stays");
            drop(fast);
            slow.take(1, |_| Ok(())).await.unwrap();
        });
    }

    /// A body of which nothing comes.
    struct Silence;

    impl HttpBody for Silence {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Pending
        }
    }

    #[test]
    fn a_body_below_the_lowest_rate_is_given_up_at_the_end_of_a_window() {
        run(async {
            let uploads = Uploads::with(1 << 20, 1000);
            let mut upload = uploads.begin(4999).await.ok().unwrap();
            upload.window = Instant::now();
            let mut silent = Body::new(Silence);
            let refusal = upload.next(&mut silent).await.err().unwrap();
            assert_eq!(refusal.kind().status, StatusCode::REQUEST_TIMEOUT);
            upload.take(1, |_| Ok(())).await.unwrap();
            let mut next = std::pin::pin!(upload.next(&mut silent));
            let polled = next.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert!(matches!(polled, Poll::Pending), "that was enough, until the next window ends");
        });
    }
}
