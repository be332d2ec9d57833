//! A table per claim, in Markdown.

use std::time::Duration;

/// One claim.
pub(crate) struct Table {
    title: &'static str,
    rows: Vec<Row>,
}

/// One figure of it.
#[derive(Default)]
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) measured: String,
    pub(crate) bar: String,
    pub(crate) met: Met,
}

/// Whether a bar is met.
#[derive(Default)]
pub(crate) enum Met {
    Yes,
    No,
    /// There is none: the figure explains another.
    #[default]
    NoBar,
}

/// Says whether a bar is met.
pub(crate) fn met(holds: bool) -> Met {
    if holds { Met::Yes } else { Met::No }
}

impl Table {
    pub(crate) fn new(title: &'static str) -> Self {
        Self { title, rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Adds a figure without a bar.
    pub(crate) fn note(&mut self, what: &str, measured: String) {
        self.row(Row { what: what.to_owned(), measured, ..Row::default() });
    }

    pub(crate) fn print(&self) {
        println!("\n{}\n\n| what | measured | bar | met |\n| --- | --- | --- | --- |", self.title);
        for Row { what, measured, bar, met } in &self.rows {
            let met = match met {
                Met::Yes => "yes",
                Met::No => "NO",
                Met::NoBar => "",
            };
            println!("| {what} | {measured} | {bar} | {met} |");
        }
    }
}

/// The times in order, to read shares of them from.
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    pub(crate) fn n_times(&self) -> usize {
        self.0.len()
    }

    /// Milliseconds that no more than `1 - share` of the times exceed; of nothing, no number.
    pub(crate) fn ms(&self, share: f64) -> f64 {
        let rank = (self.0.len() as f64 * share).ceil() as usize;
        self.0.get(rank.max(1) - 1).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    }
}
