//! Every metric in one table; its doc comment is its help text.
//!
//! Invariant: recording on the way of a request is a few atomic operations and short locks; labels
//! are resolved once, when a model is declared or a route first answers.

mod model;
mod process;
mod route;

use std::{sync::atomic::AtomicU64, time::Instant};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::Registry,
};

pub use self::{
    model::{Cost, ModelMetrics, ModelSeries},
    process::count_lost_log_lines,
    route::RouteMetrics,
};

use self::model::{ModelFamilies, ModelLabels, PromiseLabels, StageLabels};

/// Upper bounds of the latency histograms, in seconds.
const SECONDS: [f64; 16] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Upper bounds of the batch size histogram, in rows.
const ROWS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

/// Upper bounds of the forecast's histogram: what it took over what was predicted.
const RATIOS: [f64; 11] = [0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0, 8.0];

fn ratios() -> Histogram {
    Histogram::new(RATIOS)
}

fn rows() -> Histogram {
    Histogram::new(ROWS)
}

/// A counter of seconds.
type Seconds = Counter<f64, AtomicU64>;
type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// Declares the table: the registered name is `lepton_` and the field's name, the help is its doc
/// comment. Counters get `_total` added by the format.
macro_rules! metrics {
    ($($(#[doc = $help:literal])* $name:ident: $Type:ty = $new:expr;)*) => {
        /// All metrics of a process.
        pub struct Metrics {
            registry: Registry,
            $($(#[doc = $help])* $name: $Type,)*
        }

        impl Metrics {
            /// Registers every metric.
            pub fn new() -> Self {
                let mut registry = Registry::default();
                $(
                    let $name: $Type = $new;
                    // The format closes every help text with a full stop of its own.
                    let help = concat!($($help),*).trim().trim_end_matches('.');
                    registry.register(concat!("lepton_", stringify!($name)), help, $name.clone());
                )*
                registry.register("lepton_build", "The running program", Info::new(vec![("version", VERSION)]));
                registry.register_collector(Box::new(process::Process::starting_now()));
                Self { registry, $($name,)* }
            }
        }
    };
}

/// The route of a request that matched none, or that none was looked for.
pub const NO_ROUTE: &str = "none";

const VERSION: &str = env!("CARGO_PKG_VERSION");

metrics! {
    /// Time that a row spent in each stage; `total` is the sum of the others.
    stage_seconds: Histograms<StageLabels> = Family::new_with_constructor(seconds);
    /// Rows that one run of the network took.
    batch_rows: Histograms<ModelLabels> = Family::new_with_constructor(rows);
    /// Rows that were answered.
    answered_rows: Family<ModelLabels, Counter> = Family::default();
    /// CPU time charged to answered rows: preparing, their share of the run, answering.
    charged_cpu_seconds: Family<ModelLabels, Seconds> = Family::default();
    /// Rows that were accepted and then answered within their deadline, or not.
    promises: Family<PromiseLabels, Counter> = Family::default();
    /// Time in which the answer to an accepted row was predicted.
    predicted_seconds: Histograms<ModelLabels> = Family::new_with_constructor(seconds);
    /// Time in which the answer to the same rows was made.
    finished_seconds: Histograms<ModelLabels> = Family::new_with_constructor(seconds);
    /// Time that the answer to an accepted row took, as a share of what was predicted.
    forecast_ratio: Histograms<ModelLabels> = Family::new_with_constructor(ratios);
    /// Rows that wait for a worker.
    queued_rows: Family<ModelLabels, Gauge> = Family::default();
    /// Requests that were not answered, by the stable name of the reason.
    refusals: Family<ReasonLabels, Counter> = Family::default();
    /// Finished HTTP requests, by route as registered and status.
    http_requests: Family<ResponseLabels, Counter> = Family::default();
    /// Time from an HTTP request's head to the end of its handling, by route as registered.
    http_request_seconds: Histograms<RouteLabels> = Family::new_with_constructor(seconds);
    /// HTTP requests that are being handled.
    http_requests_in_flight: Gauge = Gauge::default();
    /// Connections that are open.
    connections: Gauge = Gauge::default();
    /// Requests that were refused before their route was known, and connections that were ended, by the stable name of the reason.
    connection_faults: Family<FaultLabels, Counter> = Family::default();
    /// Worker threads that there are meant to be.
    workers: Gauge = Gauge::default();
    /// Wall time of a batch for a second of CPU time that the cost table expects: above 1 where workers are interrupted or throttled.
    slowdown: Gauge<f64, AtomicU64> = Gauge::default();
    /// 1 when every model has answered its warm-up and no stop was asked, else 0.
    ready: Gauge = Gauge::default();
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FaultLabels {
    fault: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResponseLabels {
    route: &'static str,
    status: u16,
}

/// Whether the process takes requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    NotReady,
    Ready,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// The series of models, which come and go with them.
    pub fn models(&self) -> ModelSeries {
        ModelSeries::new(ModelFamilies {
            stage_seconds: self.stage_seconds.clone(),
            batch_rows: self.batch_rows.clone(),
            answered_rows: self.answered_rows.clone(),
            charged_cpu_seconds: self.charged_cpu_seconds.clone(),
            promises: self.promises.clone(),
            predicted_seconds: self.predicted_seconds.clone(),
            finished_seconds: self.finished_seconds.clone(),
            forecast_ratio: self.forecast_ratio.clone(),
            queued_rows: self.queued_rows.clone(),
        })
    }

    /// Counts a request that was not answered, by the stable name of its reason (`overloaded`).
    pub fn refused(&self, reason: &'static str) {
        self.refusals.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// Counts a fault below the routes by its stable name, and as a request where it was answered with `status`.
    pub fn connection_fault(&self, fault: &'static str, status: Option<u16>) {
        self.connection_faults.get_or_create(&FaultLabels { fault }).inc();
        if let Some(status) = status {
            self.http_requests.get_or_create(&ResponseLabels { route: NO_ROUTE, status }).inc();
        }
    }

    /// Counts a connection as open until the guard is dropped.
    pub fn connection(&self) -> OpenConnection {
        self.connections.inc();
        OpenConnection { gauge: self.connections.clone() }
    }

    /// The metrics of a route, as registered. It is never what a caller wrote, or callers could make series
    /// without end.
    pub fn route(&self, route: &'static str) -> RouteMetrics {
        RouteMetrics::new(route, self.http_requests.clone(), self.http_request_seconds.clone())
    }

    /// Counts a request in flight until the guard is dropped.
    pub fn in_flight(&self) -> InFlight {
        self.http_requests_in_flight.inc();
        InFlight { gauge: self.http_requests_in_flight.clone() }
    }

    /// Says whether the process takes requests.
    pub fn set_ready(&self, readiness: Readiness) {
        self.ready.set(i64::from(readiness == Readiness::Ready));
    }

    /// Says how many workers there are, and how the machine keeps up with what rows should cost.
    pub fn set_workers(&self, workers: usize, slowdown: f64) {
        self.workers.set(i64::try_from(workers).unwrap_or(i64::MAX));
        self.slowdown.set(slowdown);
    }

    /// Writes everything in the Prometheus text format (OpenMetrics 1.0).
    pub fn encode(&self) -> String {
        let mut text = String::with_capacity(16 << 10);
        let started = Instant::now();
        if text::encode(&mut text, &self.registry).is_err() {
            // Writing to a string fails only where an encoder is wrong; a part helps nobody.
            tracing::error!("the metrics could not be written");
            return "# EOF\n".to_owned();
        }
        tracing::trace!(bytes = text.len(), elapsed_us = started.elapsed().as_micros(), "metrics written");
        text
    }
}

/// Counts one request in flight while it lives.
pub struct InFlight {
    gauge: Gauge,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

/// Counts one open connection while it lives.
pub struct OpenConnection {
    gauge: Gauge,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, BTreeSet},
        time::Duration,
    };

    use super::*;
    use crate::manifest::{ModelId, Version};

    /// What a scrape reads: samples by name and labels.
    struct Scrape {
        samples: BTreeMap<String, f64>,
        families: BTreeSet<String>,
    }

    impl Scrape {
        /// Parses the OpenMetrics text format, and panics where it is not valid: a sample outside its
        /// family, a name or label that may not be, a value that is no number, a series twice.
        fn parse(text: &str) -> Self {
            let mut scrape = Self { samples: BTreeMap::new(), families: BTreeSet::new() };
            let mut family: Option<(String, String)> = None;
            let (body, end) = text.split_at(text.len() - "# EOF\n".len());
            assert_eq!(end, "# EOF\n");
            for line in body.lines() {
                if let Some(comment) = line.strip_prefix("# ") {
                    let mut words = comment.splitn(3, ' ');
                    let (keyword, name, rest) =
                        (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
                    match keyword {
                        "HELP" => {
                            assert!(scrape.families.insert(name.to_owned()), "{name} is there twice");
                            assert!(rest.len() > 5 && !rest.ends_with(".."), "{line}");
                            family = None;
                        }
                        "TYPE" => {
                            assert!(["counter", "gauge", "histogram", "info"].contains(&rest), "{line}");
                            assert!(scrape.families.contains(name), "no help for {name}");
                            family = Some((name.to_owned(), rest.to_owned()));
                        }
                        _ => panic!("{line}"),
                    }
                    continue;
                }
                let (family, kind) = family.as_ref().unwrap_or_else(|| panic!("no family for {line}"));
                let (series, value) = line.rsplit_once(' ').unwrap();
                let (name, labels) = series.split_once('{').map_or((series, ""), |(n, l)| (n, l));
                let suffix =
                    name.strip_prefix(family.as_str()).unwrap_or_else(|| panic!("{line} in {family}"));
                let allowed: &[&str] = match kind.as_str() {
                    "counter" => &["_total"],
                    "gauge" => &[""],
                    "info" => &["_info"],
                    _ => &["_bucket", "_sum", "_count"],
                };
                assert!(allowed.contains(&suffix), "{line} in {family} ({kind})");
                assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{line}");
                if !labels.is_empty() {
                    let labels = labels.strip_suffix('}').unwrap_or_else(|| panic!("{line}"));
                    for label in labels.split("\",") {
                        let (label, text) = label.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
                        assert!(label.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{line}");
                        assert!(!text.trim_end_matches('"').contains(['"', '\n']), "{line}");
                    }
                }
                let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
                assert!(scrape.samples.insert(series.to_owned(), value).is_none(), "{series} is there twice");
            }
            scrape
        }

        fn get(&self, series: &str) -> f64 {
            *self.samples.get(series).unwrap_or_else(|| panic!("no {series} in {:#?}", self.samples))
        }
    }

    fn face() -> ModelId {
        ModelId { name: "face".parse().unwrap(), version: Version(3) }
    }

    #[test]
    fn an_answered_row_is_seen_in_every_stage_and_charged() {
        let metrics = Metrics::new();
        let model = metrics.models().of(&face());
        let ms = Duration::from_millis;
        model.ran(4);
        model.answered(&Cost {
            queue: ms(1),
            prepare: ms(2),
            infer: ms(3),
            answer: ms(4),
            cpu: ms(5),
            batch: 4,
        });
        let scrape = Scrape::parse(&metrics.encode());
        for (stage, seconds) in
            [("queue", 0.001), ("prepare", 0.002), ("infer", 0.003), ("answer", 0.004), ("total", 0.010)]
        {
            let sum = scrape
                .get(&format!("lepton_stage_seconds_sum{{model=\"face\",stage=\"{stage}\",version=\"3\"}}"));
            assert!((sum - seconds).abs() < 1e-9, "{stage}: {sum}");
        }
        assert_eq!(scrape.get("lepton_batch_rows_bucket{le=\"4.0\",model=\"face\",version=\"3\"}"), 1.0);
        assert_eq!(scrape.get("lepton_batch_rows_bucket{le=\"2.0\",model=\"face\",version=\"3\"}"), 0.0);
        assert_eq!(scrape.get("lepton_answered_rows_total{model=\"face\",version=\"3\"}"), 1.0);
        assert_eq!(scrape.get("lepton_charged_cpu_seconds_total{model=\"face\",version=\"3\"}"), 0.005);
    }

    #[test]
    fn a_histogram_has_cumulative_buckets_that_end_in_its_count() {
        let metrics = Metrics::new();
        for us in [50, 300, 2_000_000, 60_000_000] {
            metrics.route("/v1/models").responded(200, Duration::from_micros(us));
        }
        let scrape = Scrape::parse(&metrics.encode());
        let bucket = |le: &str| {
            scrape.get(&format!("lepton_http_request_seconds_bucket{{le=\"{le}\",route=\"/v1/models\"}}"))
        };
        assert_eq!(
            ["0.0001", "0.00025", "0.0005", "1.0", "2.5", "10.0", "+Inf"].map(bucket),
            [1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0]
        );
        assert_eq!(scrape.get("lepton_http_request_seconds_count{route=\"/v1/models\"}"), 4.0);
    }

    #[test]
    fn what_goes_up_and_down_comes_back() {
        let metrics = Metrics::new();
        let model = metrics.models().of(&face());
        model.queued(3);
        model.queued(-2);
        let guards = [metrics.in_flight(), metrics.in_flight()];
        metrics.set_ready(Readiness::Ready);
        let scrape = Scrape::parse(&metrics.encode());
        assert_eq!(scrape.get("lepton_queued_rows{model=\"face\",version=\"3\"}"), 1.0);
        assert_eq!(scrape.get("lepton_http_requests_in_flight"), 2.0);
        assert_eq!(scrape.get("lepton_ready"), 1.0);
        drop(guards);
        metrics.set_ready(Readiness::NotReady);
        let scrape = Scrape::parse(&metrics.encode());
        assert_eq!(scrape.get("lepton_http_requests_in_flight"), 0.0);
        assert_eq!(scrape.get("lepton_ready"), 0.0);
    }

    #[test]
    fn requests_and_refusals_are_counted_apart() {
        let metrics = Metrics::new();
        metrics.refused("overloaded");
        metrics.refused("overloaded");
        metrics.refused("malformed");
        metrics.route("/v1/text/sentiment").responded(200, Duration::ZERO);
        metrics.route("/v1/text/sentiment").responded(503, Duration::ZERO);
        let scrape = Scrape::parse(&metrics.encode());
        assert_eq!(scrape.get("lepton_refusals_total{reason=\"overloaded\"}"), 2.0);
        assert_eq!(scrape.get("lepton_refusals_total{reason=\"malformed\"}"), 1.0);
        assert_eq!(
            scrape.get("lepton_http_requests_total{route=\"/v1/text/sentiment\",status=\"503\"}"),
            1.0
        );
    }

    #[test]
    fn the_process_tells_its_version_and_what_it_uses() {
        let scrape = Scrape::parse(&Metrics::new().encode());
        assert_eq!(scrape.get(&format!("lepton_build_info{{version=\"{VERSION}\"}}")), 1.0);
        assert!(scrape.get("process_start_time_seconds") > 1.7e9);
        assert!(scrape.get("process_cpu_seconds_total") >= 0.0);
        if cfg!(target_os = "linux") {
            assert!(scrape.get("process_resident_memory_bytes") > 1e6);
        }
    }
}
