//! What an answer cost, as a `Server-Timing` header.
//!
//! Times are milliseconds. Items of one request overlap in time, so each stage reports its longest
//! item, and `batch` its largest run; CPU time adds up, so `cpu` is the sum over the items. Models that
//! are asked one after the other add up as well. `class` and
//! `balance` are the terms that were used.

use std::time::Duration;

use crate::{
    api::json_writer::{push_digits, push_number},
    manifest::Balance,
    metrics::Cost,
    pool::Class,
};

/// Bytes that a `Server-Timing` rarely exceeds.
const USUAL: usize = 256;

/// The price of one request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ServerTiming {
    cost: Cost,
    total: Duration,
    class: Class,
    balance: Balance,
}

impl ServerTiming {
    /// Adds up the items of a request that took `total` since its head arrived.
    pub(super) fn of<'a>(
        costs: impl IntoIterator<Item = &'a Cost>,
        total: Duration,
        class: Class,
        balance: Balance,
    ) -> Self {
        Self { cost: Cost::together(costs), total, class, balance }
    }

    /// Adds the items of a model that was asked after the others had answered: its stages come on top.
    #[must_use]
    pub(super) fn then<'a>(mut self, costs: impl IntoIterator<Item = &'a Cost>) -> Self {
        self.cost = self.cost.then(&Cost::together(costs));
        self
    }

    /// What the header says; visible ASCII only.
    pub(super) fn text(&self) -> Vec<u8> {
        let Cost { queue, prepare, infer, answer, cpu, batch } = self.cost;
        let mut text = Vec::with_capacity(USUAL);
        for (name, duration) in [
            ("queue;dur=", queue),
            (", prepare;dur=", prepare),
            (", infer;dur=", infer),
            (", answer;dur=", answer),
            (", total;dur=", self.total),
            (", cpu;dur=", cpu),
        ] {
            // To the microsecond, rounded.
            let us = duration.as_secs() * 1_000_000 + u64::from((duration.subsec_nanos() + 500) / 1000);
            text.extend_from_slice(name.as_bytes());
            push_number(&mut text, us / 1000);
            text.push(b'.');
            push_digits(&mut text, us % 1000, 3);
        }
        text.extend_from_slice(b", batch;desc=\"");
        push_number(&mut text, batch as u64);
        let terms =
            ["\", class;desc=\"", self.class.name(), "\", balance;desc=\"", self.balance.name(), "\""];
        terms.into_iter().for_each(|part| text.extend_from_slice(part.as_bytes()));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(timing: &ServerTiming) -> String {
        String::from_utf8(timing.text()).unwrap()
    }

    fn cost(batch: usize) -> Cost {
        let us = Duration::from_micros;
        Cost { queue: us(10), prepare: us(20), infer: us(30), answer: us(40), cpu: us(50), batch }
    }

    #[test]
    fn one_item_reports_its_own_cost() {
        let timing =
            ServerTiming::of(&[cost(8)], Duration::from_micros(1234), Class::Interactive, Balance::Fast);
        insta::assert_snapshot!(read(&timing), @r#"queue;dur=0.010, prepare;dur=0.020, infer;dur=0.030, answer;dur=0.040, total;dur=1.234, cpu;dur=0.050, batch;desc="8", class;desc="interactive", balance;desc="fast""#);
    }

    #[test]
    fn what_comes_after_another_model_is_added() {
        let timing =
            ServerTiming::of(&[cost(1)], Duration::from_millis(1), Class::Interactive, Balance::Fast)
                .then(&[cost(2), cost(4)]);
        insta::assert_snapshot!(read(&timing), @r#"queue;dur=0.020, prepare;dur=0.040, infer;dur=0.060, answer;dur=0.080, total;dur=1.000, cpu;dur=0.150, batch;desc="4", class;desc="interactive", balance;desc="fast""#);
    }

    #[test]
    fn stages_of_several_items_take_the_longest_and_cpu_the_sum() {
        let slow = Cost { queue: Duration::from_millis(7), ..cost(2) };
        let timing =
            ServerTiming::of(&[slow, cost(4)], Duration::from_millis(9), Class::Batch, Balance::Cheap);
        insta::assert_snapshot!(read(&timing), @r#"queue;dur=7.000, prepare;dur=0.020, infer;dur=0.030, answer;dur=0.040, total;dur=9.000, cpu;dur=0.100, batch;desc="4", class;desc="batch", balance;desc="cheap""#);
    }
}
