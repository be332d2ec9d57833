//! What a free worker does next: plain numbers in, a decision out.
//!
//! Invariant: pure. No lock, no thread, no clock of its own, so that every rule is tested with
//! numbers that a test makes up.
//!
//! The rule of this version: never wait while there is work, take the bucket whose oldest job is
//! due first, and take a fair share of it, so that a burst is spread over all workers before any
//! of them runs a large batch.

use std::time::Instant;

/// What the policy sees of one bucket of one model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BucketView {
    /// Rows that wait.
    pub queued: usize,
    /// When the first of them is due.
    pub due: Instant,
    /// Most rows that one run of this model takes.
    pub max_rows: usize,
}

/// What a free worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// There is nothing to do.
    Rest,
    /// Run the first `rows` of the bucket at this position of the view.
    Run { bucket: usize, rows: usize },
}

/// Decides for one free worker out of `workers`.
pub fn decide(buckets: &[BucketView], workers: usize) -> Decision {
    let waiting = buckets.iter().enumerate().filter(|(_, bucket)| bucket.queued > 0);
    let Some((position, bucket)) = waiting.min_by_key(|(_, bucket)| bucket.due) else {
        return Decision::Rest;
    };
    let share = bucket.queued.div_ceil(workers.max(1));
    Decision::Run { bucket: position, rows: share.clamp(1, bucket.max_rows.max(1)) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn views(epoch: Instant) -> impl Strategy<Value = Vec<BucketView>> {
        let view = (0usize..100, 0u64..1000, 1usize..40).prop_map(move |(queued, due_ms, max_rows)| {
            BucketView { queued, due: epoch + Duration::from_millis(due_ms), max_rows }
        });
        prop::collection::vec(view, 0..8)
    }

    #[test]
    fn a_burst_is_shared_by_the_workers() {
        let view = [BucketView { queued: 8, due: Instant::now(), max_rows: 32 }];
        assert_eq!(decide(&view, 4), Decision::Run { bucket: 0, rows: 2 });
        assert_eq!(decide(&view, 1), Decision::Run { bucket: 0, rows: 8 });
    }

    proptest! {
        #[test]
        fn no_worker_rests_while_there_is_work(view in views(Instant::now()), workers in 1usize..9) {
            let work = view.iter().any(|bucket| bucket.queued > 0);
            prop_assert_eq!(decide(&view, workers) != Decision::Rest, work);
        }

        #[test]
        fn a_run_keeps_the_limit_and_takes_what_is_there(view in views(Instant::now()), workers in 1usize..9) {
            if let Decision::Run { bucket, rows } = decide(&view, workers) {
                prop_assert!(rows >= 1);
                prop_assert!(rows <= view[bucket].max_rows);
                prop_assert!(rows <= view[bucket].queued);
            }
        }

        #[test]
        fn nothing_that_is_due_earlier_is_passed_over(view in views(Instant::now()), workers in 1usize..9) {
            if let Decision::Run { bucket, .. } = decide(&view, workers) {
                let earliest = view.iter().filter(|b| b.queued > 0).map(|b| b.due).min();
                prop_assert_eq!(Some(view[bucket].due), earliest);
            }
        }
    }
}
