//! Capacity in the queue: how many rows and bytes may wait or run at once.
//!
//! Invariant: what is taken is held by a [`CapacityPermit`], and a dropped place gives all of it back, on
//! every path that a request can leave by.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// The room of a pool, or one model's share of it.
#[derive(Debug)]
pub(super) struct Capacity {
    rows: Gauge,
    bytes: Gauge,
}

/// What there is too little of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exhausted {
    Rows,
    Bytes,
}

#[derive(Debug)]
struct Gauge {
    taken: AtomicUsize,
    limit: AtomicUsize,
}

impl Gauge {
    fn new(limit: usize) -> Self {
        Self { taken: AtomicUsize::new(0), limit: AtomicUsize::new(limit) }
    }

    /// Takes `n`, all or nothing.
    fn take(&self, n: usize) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        let more = |taken: usize| taken.checked_add(n).filter(|sum| *sum <= limit);
        self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }

    fn give(&self, n: usize) {
        self.taken.fetch_sub(n, Ordering::AcqRel);
    }
}

impl Capacity {
    /// Makes room for `rows` and `bytes`.
    pub(super) fn new(rows: usize, bytes: usize) -> Self {
        Self { rows: Gauge::new(rows), bytes: Gauge::new(bytes) }
    }

    /// Changes the limits. What is taken stays taken, also where it is more than they allow from now on.
    pub(super) fn limit(&self, rows: usize, bytes: usize) {
        self.rows.limit.store(rows, Ordering::Relaxed);
        self.bytes.limit.store(bytes, Ordering::Relaxed);
    }

    fn take(&self, rows: usize, bytes: usize) -> Result<(), Exhausted> {
        if !self.rows.take(rows) {
            return Err(Exhausted::Rows);
        }
        if !self.bytes.take(bytes) {
            self.rows.give(rows);
            return Err(Exhausted::Bytes);
        }
        Ok(())
    }

    fn give(&self, rows: usize, bytes: usize) {
        self.rows.give(rows);
        self.bytes.give(bytes);
    }

    #[cfg(test)]
    pub(super) fn taken(&self) -> (usize, usize) {
        (self.rows.taken.load(Ordering::Acquire), self.bytes.taken.load(Ordering::Acquire))
    }
}

/// Rows and bytes taken of the pool's room and of one model's share. Given back on drop.
#[derive(Debug)]
pub(super) struct CapacityPermit {
    pool: Arc<Capacity>,
    share: Arc<Capacity>,
    rows: usize,
    bytes: usize,
}

impl CapacityPermit {
    /// Takes one row and `bytes` of both rooms, or of neither.
    pub(super) fn take(pool: &Arc<Capacity>, share: &Arc<Capacity>, bytes: usize) -> Result<Self, Exhausted> {
        let mut place = Self { pool: Arc::clone(pool), share: Arc::clone(share), rows: 0, bytes: 0 };
        place.grow(1, bytes)?;
        Ok(place)
    }

    /// Takes more, all or nothing.
    pub(super) fn grow(&mut self, rows: usize, bytes: usize) -> Result<(), Exhausted> {
        self.share.take(rows, bytes)?;
        if let Err(full) = self.pool.take(rows, bytes) {
            self.share.give(rows, bytes);
            return Err(full);
        }
        self.rows += rows;
        self.bytes += bytes;
        Ok(())
    }

    /// Gives `bytes` of those held back.
    pub(super) fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.share.give(0, bytes);
        self.pool.give(0, bytes);
    }

    /// Splits off a place of one row and at most `bytes`, out of what this one holds.
    pub(super) fn split_off(&mut self, bytes: usize) -> Self {
        let bytes = bytes.min(self.bytes);
        let rows = self.rows.min(1);
        self.rows -= rows;
        self.bytes -= bytes;
        Self { pool: Arc::clone(&self.pool), share: Arc::clone(&self.share), rows, bytes }
    }

    /// Splits off every byte that this one holds, and no row.
    pub(super) fn split_off_bytes(&mut self) -> Self {
        let bytes = std::mem::take(&mut self.bytes);
        Self { pool: Arc::clone(&self.pool), share: Arc::clone(&self.share), rows: 0, bytes }
    }

    /// The bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for CapacityPermit {
    fn drop(&mut self) {
        self.share.give(self.rows, self.bytes);
        self.pool.give(self.rows, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_place_leaves_nothing_taken() {
        let (pool, share) = (Arc::new(Capacity::new(2, 100)), Arc::new(Capacity::new(8, 1000)));
        let mut first = CapacityPermit::take(&pool, &share, 60).unwrap();
        assert_eq!(CapacityPermit::take(&pool, &share, 60).unwrap_err(), Exhausted::Bytes);
        assert_eq!(first.grow(2, 0).unwrap_err(), Exhausted::Rows);
        assert_eq!(first.grow(1, usize::MAX).unwrap_err(), Exhausted::Bytes);
        assert_eq!((pool.taken(), share.taken()), ((1, 60), (1, 60)));
        drop(first);
        assert_eq!((pool.taken(), share.taken()), ((0, 0), (0, 0)));
    }

    #[test]
    fn what_is_split_off_is_given_back_by_its_own_owner() {
        let room = Arc::new(Capacity::new(4, 100));
        let share = Arc::new(Capacity::new(4, 100));
        let mut whole = CapacityPermit::take(&room, &share, 50).unwrap();
        whole.grow(1, 0).unwrap();
        let part = whole.split_off(30);
        drop(whole);
        assert_eq!(room.taken(), (1, 30));
        let mut part = part;
        let bytes = part.split_off_bytes();
        drop(part);
        assert_eq!(room.taken(), (0, 30));
        drop(bytes);
        assert_eq!(room.taken(), (0, 0));
    }
}
