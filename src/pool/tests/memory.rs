//! Memory that queued jobs keep alive against the room that they hold.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use proptest::{prelude::*, test_runner::TestRunner};

use super::*;

/// Bytes that count as alive until the last slice of them is dropped.
struct Counted {
    bytes: Vec<u8>,
    alive: Arc<AtomicUsize>,
}

impl Counted {
    fn body(n_bytes: usize, alive: &Arc<AtomicUsize>) -> Bytes {
        alive.fetch_add(n_bytes, Ordering::SeqCst);
        Bytes::from_owner(Self { bytes: vec![0; n_bytes], alive: Arc::clone(alive) })
    }
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.alive.fetch_sub(self.bytes.len(), Ordering::SeqCst);
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// A body of a number of bytes, of which a number of one-byte slices are inputs.
    Ask { n_bytes: usize, n_slices: usize },
    /// The caller of the reply at that position, modulo those that wait, leaves.
    Leave(usize),
    /// All of them leave.
    Empty,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let ask = (1usize..3000, 1usize..5).prop_map(|(n_bytes, n_slices)| Step::Ask { n_bytes, n_slices });
    let step = prop_oneof![6 => ask, 3 => (0usize..64).prop_map(Step::Leave), 1 => Just(Step::Empty)];
    prop::collection::vec(step, 1..24)
}

#[tokio::test]
async fn queued_jobs_hold_the_room_of_all_the_memory_that_they_keep_alive() {
    let (pool, gate) = pool(ROOM).await;
    let (room, alive) = (Arc::clone(pool.shared.room()), Arc::new(AtomicUsize::new(0)));
    let check = |when: &str| {
        // The room first: jobs may end meanwhile, and none comes.
        let (taken, alive) = (room.taken().1, alive.load(Ordering::SeqCst));
        assert!(alive <= taken && taken <= ROOM.queue_bytes, "{when}: {alive} bytes alive, room for {taken}");
    };
    let run = |steps: Vec<Step>| {
        let held = gate.hold();
        let entered = gate.runs().len();
        let busy = submit(&pool, "1");
        gate.wait_for(entered + 1);
        let mut waiting: Vec<Reply> = Vec::new();
        for step in steps {
            match step {
                Step::Ask { n_bytes, n_slices } => {
                    let Ok(mut reservation) = reserve(&pool) else { continue };
                    // As a body comes: the room first.
                    if reservation.grow(n_bytes).is_err() {
                        continue;
                    }
                    let body = Counted::body(n_bytes, &alive);
                    let slice = |at: usize| Input::image(body.slice(at % n_bytes..=at % n_bytes));
                    let inputs = (0..n_slices).map(slice).collect();
                    drop(body);
                    // Refused inputs are dropped before the reservation is.
                    waiting.extend(reservation.submit_slices(inputs, n_bytes).unwrap_or_default());
                }
                Step::Leave(at) if !waiting.is_empty() => {
                    drop(waiting.swap_remove(at % waiting.len()));
                    pool.shared.sweep();
                }
                Step::Leave(_) => {}
                // Those who left hold their room until a worker passes them.
                Step::Empty => waiting.clear(),
            }
            check("while they wait");
        }
        drop(held);
        drop((busy, waiting));
        while room.taken() != (0, 0) {
            check("while they end");
            std::thread::yield_now();
        }
        assert_eq!(alive.load(Ordering::SeqCst), 0);
        Ok(())
    };
    let mut runner = TestRunner::deterministic();
    runner.run(&steps(), run).unwrap();
}

#[tokio::test]
async fn a_body_of_blanks_counts_until_its_last_input_is_answered() {
    let (pool, gate) = pool(ROOM).await;
    let _held = gate.hold();
    let busy = submit(&pool, "1");
    gate.wait_for(1);
    let ask = |n_bytes: usize| {
        let mut reservation = reserve(&pool)?;
        reservation.grow(n_bytes)?;
        let body = Bytes::from(vec![b' '; n_bytes]);
        reservation
            .submit_slices(vec![Input::image(body.slice(..1)), Input::image(body.slice(1..2))], n_bytes)
    };
    let mut first = ask(3000).unwrap();
    assert_eq!(pool.shared.room().taken().1, 3000 + 1, "all of it, and one byte of text that runs");
    let Err(Error::Overloaded { reason, .. }) = ask(2000) else { panic!("room for more than there is") };
    assert_eq!(reason, "the queue is full: no more bytes of input can wait");
    drop(first.pop());
    pool.shared.sweep();
    assert_eq!(pool.shared.room().taken().1, 3000 + 1, "the other slice keeps the body alive");
    drop(first);
    while pool.shared.room().taken().1 > 1 {
        pool.shared.sweep();
    }
    assert!(ask(2000).is_ok());
    gate.release();
    busy.await.unwrap();
}
