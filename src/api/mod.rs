//! Answers as callers read them, whatever carries them: HTTP and the command line write the same JSON.
//!
//! Invariant: knows no transport and no task by name; each shape of [`Output`](crate::tasks::Output) has one writer.

mod answer;
mod entry;
pub(crate) mod json_writer;
mod region;
mod scores;

pub(crate) use self::{
    answer::{AnswerBody, AnsweredBy},
    entry::Entry,
};
