//! What all costs that is not the network: one that does nothing through the whole server, against a
//! bare handler that reads the same body and writes an answer of the same size.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use axum::{Router, http::header::CONTENT_TYPE, routing::post, serve::ListenerExt};
use bytes::Bytes;
use rustix::time::{ClockId, clock_gettime};
use tokio::{net::TcpListener, runtime::Runtime};

use super::{
    nothing,
    probe::Probe,
    report::{Row, Table, met},
    support::{
        client::{Failure, saturate},
        median,
        served::Served,
        work::Work,
    },
};

/// Rounds of the throughput measurement, callers that keep both busy, and turns of the latency one.
const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_millis(600);
const CALLERS: usize = 32;
const TURNS: usize = 4000;

/// The bars: microseconds at the median, and share of the bare handler's throughput.
const DIFFERENCE_US: f64 = 100.0;
const SHARE: f64 = 0.6;

pub(crate) fn measure() -> Result<(), Failure> {
    let served = Served::start(1, vec![nothing::declared()?])?;
    let request = Work::sentence().request("");
    let mut through = Probe::connect(served.address)?;
    let answer = through.body(&request)?;
    let bare = Bare::start(answer)?;
    let mut direct = Probe::connect(bare.address)?;

    let (mut bare_us, mut served_us) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        bare_us.push(turn(&mut direct, &request)?);
        served_us.push(turn(&mut through, &request)?);
    }
    let (bare_us, served_us) = (median(bare_us), median(served_us));

    let requests = [request];
    let (mut ratios, mut rates, mut costs) = (Vec::new(), [vec![], vec![]], [vec![], vec![]]);
    for round in 0..=ROUNDS {
        let [bare, served] = [bare.address, served.address].map(|address| busy(address, &requests));
        let (bare, served) = (bare?, served?);
        // The first round warms up.
        if round > 0 {
            ratios.push(served.0 / bare.0);
            for (n, (rate, cost)) in [bare, served].into_iter().enumerate() {
                rates[n].push(rate);
                costs[n].push(cost);
            }
        }
    }
    let share = median(ratios);
    let ([bare_rate, served_rate], [bare_cost, served_cost]) = (rates.map(median), costs.map(median));

    let mut table = Table::new("Own overhead: a network that does nothing, against a bare axum handler");
    let difference = served_us - bare_us;
    table.row(Row {
        what: "p50 at concurrency 1".to_owned(),
        measured: format!("{difference:.0} us more ({served_us:.0} us, bare {bare_us:.0} us)"),
        bar: format!("< {DIFFERENCE_US:.0} us"),
        met: met(difference < DIFFERENCE_US),
    });
    table.row(Row {
        what: format!("saturated, {CALLERS} callers"),
        measured: format!("{share:.3} of bare ({served_rate:.0}/s, bare {bare_rate:.0}/s)"),
        bar: format!(">= {SHARE}"),
        met: met(share >= SHARE),
    });
    table.row(Row {
        what: "CPU of the server's threads, saturated".to_owned(),
        measured: format!("{served_cost:.1} us a request (bare {bare_cost:.1} us)"),
        ..Row::default()
    });
    table.print();
    served.stop()
}

/// Microseconds that one request takes.
fn turn(probe: &mut Probe, request: &[u8]) -> Result<f64, Failure> {
    let began = Instant::now();
    let status = probe.ask(request)?.status;
    let took = began.elapsed().as_secs_f64() * 1e6;
    if status == 200 { Ok(took) } else { Err(format!("answered {status}").into()) }
}

/// Answers a second, and CPU microseconds of each that were not the callers' own.
fn busy(address: SocketAddr, requests: &[Bytes]) -> Result<(f64, f64), Failure> {
    let used = || seconds(ClockId::ProcessCPUTime) - seconds(ClockId::ThreadCPUTime);
    let (before, began) = (used(), Instant::now());
    let rate = saturate(address, requests, CALLERS, 200, ROUND)?;
    let answers = rate * began.elapsed().as_secs_f64();
    Ok((rate, (used() - before) * 1e6 / answers))
}

fn seconds(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// A handler with nothing around it, on as many threads that move bytes.
struct Bare {
    address: SocketAddr,
    /// Ends with it.
    _runtime: Runtime,
}

impl Bare {
    fn start(answer: Bytes) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        let handler = async move |body: Bytes| {
            std::hint::black_box(body);
            ([(CONTENT_TYPE, "application/json")], answer.clone())
        };
        let app = Router::new().route("/v1/text/sentiment", post(handler));
        let listener = listener.tap_io(|stream| {
            // As the server does: what is written is sent at once.
            let _set = stream.set_nodelay(true);
        });
        runtime.spawn(async move { axum::serve(listener, app).await });
        Ok(Self { address, _runtime: runtime })
    }
}
