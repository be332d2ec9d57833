//! What is counted of one route.

use std::{sync::OnceLock, time::Duration};

use prometheus_client::metrics::{counter::Counter, family::Family, histogram::Histogram};

use super::{Histograms, ResponseLabels, RouteLabels};

/// The metrics of one route. Its labels are resolved when they are first needed, for what a route never
/// answered is not shown.
pub struct RouteMetrics {
    route: &'static str,
    requests: Family<ResponseLabels, Counter>,
    seconds: Histograms<RouteLabels>,
    time: OnceLock<Histogram>,
    /// The two statuses that come by the ten thousand.
    answered: OnceLock<Counter>,
    overloaded: OnceLock<Counter>,
}

impl RouteMetrics {
    pub(super) fn new(
        route: &'static str,
        requests: Family<ResponseLabels, Counter>,
        seconds: Histograms<RouteLabels>,
    ) -> Self {
        let (time, answered, overloaded) = Default::default();
        Self { route, requests, seconds, time, answered, overloaded }
    }

    /// The route as registered.
    pub fn route(&self) -> &'static str {
        self.route
    }

    /// Counts a finished request: its status, its duration.
    pub fn responded(&self, status: u16, elapsed: Duration) {
        let route = self.route;
        let count = || self.requests.get_or_create_owned(&ResponseLabels { route, status });
        match status {
            200 => self.answered.get_or_init(count).inc(),
            503 => self.overloaded.get_or_init(count).inc(),
            _ => count().inc(),
        };
        let time = || self.seconds.get_or_create_owned(&RouteLabels { route });
        self.time.get_or_init(time).observe(elapsed.as_secs_f64());
    }
}
