//! Reads a body that has been admitted, within its limit and its time.
//!
//! Invariant: memory grows as bytes come, frame by frame, and only after the slot has granted it. What a head
//! declares takes none.

use std::time::{Duration, Instant};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http_body_util::BodyExt;

use super::{
    problem::Refusal,
    uploads::{Upload, Uploads, no_room},
};
use crate::error::{Amount, Error};

/// Bytes that are looked at before other requests get their turn: well below half a millisecond, even
/// where every byte is dear.
pub(super) const STEP: usize = 64 << 10;

/// What is measured when a body is too large.
const WHAT: &str = "body bytes";

/// Within which limits a body is read.
pub(super) struct BodyLimits {
    /// The most bytes.
    pub(super) bytes: u64,
    /// The longest wait, from the first byte asked for.
    pub(super) timeout: Duration,
    /// When the request's head arrived.
    pub(super) arrived: Instant,
    /// How long after that its answer is of use.
    pub(super) deadline: Duration,
    /// The other bodies, which share the room for those that are on their way.
    pub(super) uploads: Uploads,
}

/// The length that a body declares; refuses one that is larger than `most` bytes.
pub(super) fn declared_length(body: &Body, most: u64) -> Result<Option<usize>, Error> {
    match body.size_hint().exact() {
        Some(length) if length > most => {
            Err(Error::TooLarge { what: WHAT, got: Amount::Exactly(length), limit: most })
        }
        Some(length) => Ok(usize::try_from(length).ok()),
        None => Ok(None),
    }
}

/// Reads all of `body`. `grow` is asked before bytes are kept.
pub(super) async fn read(
    body: Body,
    limits: BodyLimits,
    grow: impl FnMut(usize) -> Result<(), Error>,
) -> Result<Bytes, Refusal> {
    let now = Instant::now();
    let until = (now + limits.timeout).min(limits.arrived + limits.deadline);
    match tokio::time::timeout_at(until.into(), collect(body, &limits, grow)).await {
        Ok(read) => read,
        Err(_) => Err(Refusal::body_timeout(until.saturating_duration_since(now))),
    }
}

async fn collect(
    mut body: Body,
    limits: &BodyLimits,
    mut grow: impl FnMut(usize) -> Result<(), Error>,
) -> Result<Bytes, Refusal> {
    let most = limits.bytes;
    let declared = declared_length(&body, most)?;
    let mut bytes = Growing::new(declared.unwrap_or(usize::try_from(most).unwrap_or(usize::MAX)));
    let mut upload: Option<Upload> = None;
    let mut since_turn = 0;
    loop {
        let ready = tokio::select! {
            biased;
            next = body.frame() => Some(next),
            () = std::future::ready(()) => None,
        };
        let next = match (ready, &mut upload) {
            (Some(next), _) => next,
            (None, Some(upload)) => upload.next(&mut body).await?,
            (None, none) => none.insert(limits.uploads.begin(bytes.len()).await?).next(&mut body).await?,
        };
        let Some(frame) = next else { break };
        // The cause is the connection's; what callers can act on is that the body did not come whole.
        let frame = frame.map_err(|_| Error::malformed("the body ended early, or its chunks are broken"))?;
        let Ok(data) = frame.into_data() else { continue };
        if (bytes.len() + data.len()) as u64 > most {
            return Err(Error::TooLarge { what: WHAT, got: Amount::More, limit: most }.into());
        }
        match &mut upload {
            Some(upload) => upload.take(data.len(), &mut grow).await?,
            None => grow(data.len())?,
        }
        bytes.push(&data).await?;
        since_turn += data.len() + FRAME;
        if since_turn >= TURN {
            // Others come first: a caller on a fast network, or one whose chunks are of a byte, could be read from
            // without end.
            since_turn = 0;
            tokio::task::yield_now().await;
        }
    }
    Ok(bytes.finish())
}

/// How many bytes of a body are read before others get a turn, and how many a frame counts for beside its own:
/// some tens of microseconds.
const TURN: usize = 128 << 10;
const FRAME: usize = 1 << 10;

/// The first bytes that memory is taken for, whatever is declared.
const FIRST: usize = 64 << 10;

/// How many times as much is taken each time that more is needed.
const GROWTH: usize = 4;

/// Bytes that are copied at once where a body moves: well below half a millisecond, first touch included.
const MOVE: usize = 256 << 10;

/// Bytes that grow in memory as they come.
struct Growing {
    bytes: Vec<u8>,
    /// What is not exceeded.
    most: usize,
}

impl Growing {
    fn new(most: usize) -> Self {
        Self { bytes: Vec::new(), most }
    }

    fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Appends `data`, or refuses it where there is no memory for it.
    async fn push(&mut self, data: &[u8]) -> Result<(), Error> {
        let needed = self.len() + data.len();
        if needed > self.bytes.capacity() {
            let wanted = self.bytes.capacity().saturating_mul(GROWTH).max(FIRST).min(self.most).max(needed);
            let mut larger = Vec::new();
            larger
                .try_reserve_exact(wanted)
                .map_err(|_| no_room("there is no memory for more of the body at present"))?;
            for (idx, part) in self.bytes.chunks(MOVE).enumerate() {
                if idx > 0 {
                    tokio::task::yield_now().await;
                }
                larger.extend_from_slice(part);
            }
            self.bytes = larger;
        }
        self.bytes.extend_from_slice(data);
        Ok(())
    }

    fn finish(self) -> Bytes {
        self.bytes.into()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        pin::Pin,
        task::{Context, Poll},
    };

    use axum::http::StatusCode;
    use hyper::body::Frame;

    use super::*;

    /// A body of unknown length: these chunks, then silence or the end.
    struct Chunks {
        chunks: Vec<&'static [u8]>,
        then: Then,
    }

    #[derive(Clone, Copy)]
    enum Then {
        End,
        Silence,
    }

    impl HttpBody for Chunks {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            if self.chunks.is_empty() {
                return match self.then {
                    Then::End => Poll::Ready(None),
                    Then::Silence => Poll::Pending,
                };
            }
            let chunk = self.chunks.remove(0);
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(chunk)))))
        }
    }

    fn chunks(chunks: &[&'static [u8]], then: Then) -> Body {
        Body::new(Chunks { chunks: chunks.to_vec(), then })
    }

    fn limits() -> BodyLimits {
        BodyLimits {
            bytes: 8,
            timeout: Duration::from_secs(3),
            arrived: Instant::now(),
            deadline: Duration::from_secs(60),
            uploads: Uploads::with(1 << 20, 0),
        }
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().build().unwrap().block_on(future)
    }

    #[test]
    fn a_declared_body_takes_room_as_it_arrives() {
        let mut asked = 0;
        let body = Body::from("12345678");
        assert_eq!(declared_length(&body, 8), Ok(Some(8)));
        let grow = |n| {
            asked += n;
            Ok(())
        };
        assert_eq!(run(read(body, limits(), grow)).unwrap(), "12345678");
        assert_eq!(asked, 8);
    }

    #[test]
    fn a_body_of_unknown_length_grows_frame_by_frame() {
        let mut asked = Vec::new();
        let body = chunks(&[b"123", b"45"], Then::End);
        assert_eq!(declared_length(&body, 8), Ok(None));
        let bytes = run(read(body, limits(), |n| {
            asked.push(n);
            Ok(())
        }));
        assert_eq!(bytes.unwrap(), "12345");
        assert_eq!(asked, [3, 2]);
    }

    #[test]
    fn a_body_that_is_too_large_is_refused_by_its_length_or_when_it_passes() {
        let declared = declared_length(&Body::from("123456789"), 8).unwrap_err();
        assert_eq!(declared.to_string(), "body bytes: 9 is more than the 8 allowed");
        let counted =
            run(read(chunks(&[b"12345", b"6789"], Then::Silence), limits(), |_| Ok(()))).unwrap_err();
        assert_eq!(counted.cause(), "body bytes: what was sent is more than the 8 allowed");
    }

    #[test]
    fn growth_that_is_not_granted_ends_the_reading() {
        let wait = Duration::from_secs(1);
        let full =
            || Error::Overloaded { reason: "the queue is full".into(), retry_after: wait, forecast: wait };
        let refusal = run(read(chunks(&[b"1"], Then::Silence), limits(), |_| Err(full()))).unwrap_err();
        assert_eq!(refusal, full().into());
    }

    #[test]
    fn a_silent_sender_is_given_up_on_at_the_nearer_of_timeout_and_deadline() {
        for (timeout, deadline) in [(10, 60_000), (60_000, 10)] {
            let limits = BodyLimits {
                timeout: Duration::from_millis(timeout),
                deadline: Duration::from_millis(deadline),
                ..limits()
            };
            let refusal = run(read(chunks(&[b"1"], Then::Silence), limits, |_| Ok(()))).unwrap_err();
            assert_eq!(refusal.kind().status, StatusCode::REQUEST_TIMEOUT);
        }
    }
    #[test]
    fn a_body_grows_with_what_comes_and_not_with_what_is_declared() {
        run(async {
            let mut bytes = Growing::new(1 << 40);
            bytes.push(b"few").await.unwrap();
            assert_eq!(bytes.bytes.capacity(), FIRST);
            let data: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
            for part in data.chunks(10_000) {
                bytes.push(part).await.unwrap();
                assert!(bytes.bytes.capacity() <= (bytes.len() * GROWTH).max(FIRST));
            }
            assert_eq!(bytes.finish(), [b"few", &data[..]].concat());
            let mut exact = Growing::new(data.len());
            for part in data.chunks(10_000) {
                exact.push(part).await.unwrap();
            }
            assert_eq!(exact.bytes.capacity(), data.len());
        });
    }
}
