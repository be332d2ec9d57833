//! What inputs add to the gates of a cell: made for one run, or kept in a table by word.
//!
//! Invariant: a place in [`Gates`] leads to numbers that were written before, and that nobody writes
//! while the [`Gates`] live.

#![expect(unsafe_code, reason = "rows of a table are written while others are read")]

use std::{
    marker::PhantomData,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{super::aligned::Aligned, Cell};

/// What the inputs of a run add to the gates.
#[derive(Debug)]
pub struct Gates<'a> {
    start: *const f32,
    n_projected: usize,
    /// How many numbers after `start` the place of an input begins.
    at: Vec<usize>,
    lent: PhantomData<&'a [f32]>,
}

impl<'a> Gates<'a> {
    /// Reads from what [`Cell::project`] of `cell` wrote: `inputs` says which input stands at each place.
    ///
    /// # Panics
    /// Where an input is not among the projected.
    pub fn of(cell: &Cell, projected: &'a [f32], inputs: impl Iterator<Item = usize>) -> Self {
        let n_projected = cell.n_projected();
        let n = projected.len() / n_projected;
        let place = |input: usize| {
            assert!(input < n, "input {input} of {n}");
            input * n_projected
        };
        Self { start: projected.as_ptr(), n_projected, at: inputs.map(place).collect(), lent: PhantomData }
    }

    /// How many places there are.
    pub(super) fn len(&self) -> usize {
        self.at.len()
    }

    pub(super) fn n_projected(&self) -> usize {
        self.n_projected
    }

    pub(super) fn at(&self) -> &[usize] {
        &self.at
    }

    /// Where the places begin: [`Gates::n_projected`] numbers can be read at each.
    pub(super) fn start(&self) -> *const f32 {
        self.start
    }
}

/// What each word of a vocabulary adds to the gates of a cell, where words come in by number: the
/// product of its vector with the input's weights, made when the word is first met and kept.
///
/// Memory is taken as words are met, huge page by huge page where the kernel has them.
pub struct Table {
    cell: Arc<Cell>,
    rows: Aligned,
    met: Box<[AtomicBool]>,
    /// Held by the thread that writes rows.
    writing: Mutex<()>,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Table of {} words for {:?}", self.met.len(), self.cell)
    }
}

impl Table {
    /// Makes an empty table of `n_words` words, or answers nothing where it would take more than
    /// `most_bytes`.
    pub fn new(cell: Arc<Cell>, n_words: usize, most_bytes: usize) -> Option<Self> {
        let len = n_words.checked_mul(cell.n_projected())?;
        if len.checked_mul(size_of::<f32>())? > most_bytes {
            return None;
        }
        let met = (0..n_words).map(|_| AtomicBool::new(false)).collect();
        Some(Self { rows: Aligned::lent(len), met, writing: Mutex::new(()), cell })
    }

    /// The cell that the table is for.
    pub fn cell(&self) -> &Cell {
        &self.cell
    }

    /// Finds the rows of `words`, one for each place. `vector` writes the vector of a word that is
    /// met for the first time, [`Cell::n_inputs`] numbers.
    ///
    /// # Errors
    /// The first word that is not in the vocabulary.
    pub fn gates(
        &self,
        words: impl Iterator<Item = usize>,
        vector: impl Fn(usize, &mut [f32]),
    ) -> Result<Gates<'_>, usize> {
        let n_projected = self.cell.n_projected();
        let (mut at, mut new) = (Vec::with_capacity(words.size_hint().0), Vec::new());
        for word in words {
            // What was written before the word was marked is seen after its mark is.
            if !self.met.get(word).ok_or(word)?.load(Ordering::Acquire) {
                new.push(word);
            }
            at.push(word * n_projected);
        }
        if !new.is_empty() {
            self.meet(new, vector);
        }
        Ok(Gates { start: self.rows.start(), n_projected, at, lent: PhantomData })
    }

    fn meet(&self, mut words: Vec<usize>, vector: impl Fn(usize, &mut [f32])) {
        words.sort_unstable();
        words.dedup();
        // A panic of `vector` leaves no word marked that was not written.
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        words.retain(|word| !self.met[*word].load(Ordering::Acquire));
        let (n_inputs, n_projected) = (self.cell.n_inputs(), self.cell.n_projected());
        let mut inputs = vec![0.0; words.len() * n_inputs];
        let mut gates = vec![0.0; words.len() * n_projected];
        for (word, input) in words.iter().zip(inputs.chunks_exact_mut(n_inputs)) {
            vector(*word, input);
        }
        self.cell.project(&inputs, &mut gates);
        for (word, gates) in words.iter().zip(gates.chunks_exact(n_projected)) {
            // SAFETY: `word` is below the number of rows; nobody reads a row before its mark, and the
            // lock keeps other writers out.
            unsafe {
                let row = self.rows.start().add(word * n_projected);
                row.copy_from_nonoverlapping(gates.as_ptr(), n_projected);
            }
            self.met[*word].store(true, Ordering::Release);
        }
    }
}
