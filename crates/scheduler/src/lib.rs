//! Which rows run when and together, what they cost, and which answers can be promised.
//!
//! Invariant: no I/O, no threads, no locks and no clock: whoever asks says what time it is. The server, a simulator and
//! a test with a clock of its own run this same code.
//!
//! In reading order: [`queue`] holds what waits, a [`model_queue`] for each model, as [`entry`]s: rows and on which terms
//! they were accepted. [`policy`] decides what a free worker runs; [`arrivals`] tell it whether more rows are expected.
//! What can be promised rests on the [`charge`] of each input, which is learnt as [`cost`] (of running rows) and
//! [`handling`] (of preparing inputs, by their [`workload`]), and on the [`ledger`]: [`demand`] (what is owed by when),
//! [`slowdown`] (how the machine keeps up), and who works on what.

pub mod arena;
pub mod arrivals;
pub mod balance;
pub mod charge;
pub mod cost;
pub mod demand;
pub mod entry;
pub mod handling;
pub mod ledger;
pub mod model_queue;
pub mod policy;
pub mod queue;
pub mod slowdown;
pub mod workload;
