//! Whether one caller, who does its worst, keeps others from their answers: texts with a deadline at a quarter of
//! what the server can do, and `/healthz`.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use bytes::Bytes;

use super::{
    child::Lepton,
    open_loop::{Load, offer},
    probe::{look, oversleep},
    report::{Row, Table, Times, met},
    support::{
        client::{Failure, post, saturate},
        work::Work,
    },
};

const TIME: Duration = Duration::from_secs(5);
const CAPACITY: Duration = Duration::from_millis(1500);
const CALLERS: usize = 32;
/// What the others ask for, as a share of what can be done.
const SHARE: f64 = 0.25;
const DEADLINE: Duration = Duration::from_millis(100);
/// Between two looks at `/healthz`.
const PAUSE: Duration = Duration::from_millis(5);

/// The bars: the share of the others' texts that is answered in time, and milliseconds of which 99 in 100 looks
/// take less.
const LEAST: f64 = 0.99;
const MOST_MS: f64 = 50.0;

/// Holds a connection for as long as it is well.
type Worst = fn(SocketAddr, &AtomicBool) -> Result<(), Failure>;

/// What one caller does, and on how many connections.
const WORST: [(&str, usize, Worst); 8] = [
    ("nothing", 0, pipelined_metrics),
    ("/metrics, pipelined", 1, pipelined_metrics),
    ("/metrics, pipelined and not read", 200, unread_metrics),
    ("16 MiB in chunks of a byte", 2, bytewise),
    ("uploads that stop before their last byte", 8, stalled),
    ("bodies that are declared and not sent", 100, declared),
    ("connections that are kept, 1,100 of them", 4, kept),
    ("refusals by the thousand", 8, refused),
];

pub(crate) fn measure(workers: usize) -> Result<(), Failure> {
    let title = "Harm: texts within 100 ms at a quarter of capacity while one caller does its worst";
    let mut table = Table::new(title);
    for (name, connections, worst) in WORST {
        let lepton = Lepton::start(workers)?;
        let work = Work::sentence();
        let capacity = saturate(lepton.address, &[work.request("")], CALLERS, 200, CAPACITY)?;
        let requests = [work.request("x-deadline-ms: 100\r\n")];
        let rate = SHARE * capacity;
        let load = Load { address: lepton.address, requests: &requests, rate, time: TIME, seed: 3 };
        let over = AtomicBool::new(false);
        let (seen, looks) = thread::scope(|scope| {
            for _ in 0..connections {
                // Whatever the server does to it, it begins again.
                let again = || {
                    while !over.load(Ordering::Relaxed) {
                        let _cut_off = worst(lepton.address, &over);
                    }
                };
                thread::Builder::new().spawn_scoped(scope, again)?;
            }
            let watcher = || {
                let mut looks = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    looks.push(look(lepton.address, "/healthz")?);
                    oversleep(PAUSE);
                }
                Ok::<_, Failure>(looks)
            };
            let watcher = thread::Builder::new().spawn_scoped(scope, watcher)?;
            let seen = offer(&load);
            over.store(true, Ordering::Relaxed);
            Ok::<_, Failure>((seen?, watcher.join().map_err(|_| "the watcher panicked")??))
        })?;
        let share = seen.good(DEADLINE) as f64 / seen.offered.max(1) as f64;
        table.row(Row {
            what: format!("{name}: texts in time"),
            measured: format!("{:.2} % of {:.0}/s ({})", share * 100.0, rate, seen.statuses()),
            bar: format!(">= {:.0} %", LEAST * 100.0),
            met: met(share >= LEAST),
        });
        let looks = Times::new(looks);
        let p99 = looks.ms(0.99);
        table.row(Row {
            what: format!("{name}: /healthz p99"),
            measured: format!("{p99:.1} ms (p50 {:.1}, worst {:.1})", looks.ms(0.5), looks.ms(1.0)),
            bar: format!("< {MOST_MS:.0} ms"),
            met: met(p99 < MOST_MS),
        });
    }
    table.print();
    Ok(())
}

/// How long a caller waits for the server before it looks whether to go on.
const GLANCE: Duration = Duration::from_millis(100);

fn connect(address: SocketAddr) -> Result<TcpStream, Failure> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(GLANCE))?;
    stream.set_write_timeout(Some(GLANCE))?;
    Ok(stream)
}

/// Reads and drops what comes, until the server closes or the time is over.
fn wait(stream: &mut TcpStream, over: &AtomicBool) {
    let mut dropped = [0; 64 << 10];
    while !over.load(Ordering::Relaxed) {
        match stream.read(&mut dropped) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

const METRICS: &[u8] = b"GET /metrics HTTP/1.1\r\nhost: bench\r\n\r\n";

fn pipelined_metrics(address: SocketAddr, over: &AtomicBool) -> Result<(), Failure> {
    let (mut stream, requests) = (connect(address)?, METRICS.repeat(2000));
    let mut reads = stream.try_clone()?;
    thread::scope(|scope| {
        thread::Builder::new().spawn_scoped(scope, move || wait(&mut reads, over))?;
        while !over.load(Ordering::Relaxed) {
            stream.write_all(&requests)?;
        }
        Ok(())
    })
}

fn unread_metrics(address: SocketAddr, over: &AtomicBool) -> Result<(), Failure> {
    let mut stream = connect(address)?;
    stream.write_all(&METRICS.repeat(2000))?;
    while !over.load(Ordering::Relaxed) {
        thread::sleep(GLANCE);
    }
    Ok(())
}

fn bytewise(address: SocketAddr, over: &AtomicBool) -> Result<(), Failure> {
    let mut stream = connect(address)?;
    stream.write_all(
        b"POST /v1/vision/classify HTTP/1.1\r\nhost: bench\r\ncontent-type: image/jpeg\r\n\
          x-deadline-ms: 60000\r\ntransfer-encoding: chunked\r\n\r\n",
    )?;
    let chunks = b"1\r\n\xff\r\n".repeat(10_000);
    while !over.load(Ordering::Relaxed) {
        stream.write_all(&chunks)?;
    }
    Ok(())
}

fn upload(n_bytes: usize) -> Bytes {
    let head = format!(
        "POST /v1/vision/classify?model=face HTTP/1.1\r\nhost: bench\r\ncontent-type: image/jpeg\r\n\
         x-deadline-ms: 60000\r\ncontent-length: {n_bytes}\r\n\r\n"
    );
    head.into_bytes().into()
}

fn stalled(address: SocketAddr, over: &AtomicBool) -> Result<(), Failure> {
    let (mut stream, n_bytes) = (connect(address)?, 16 << 20);
    stream.write_all(&upload(n_bytes))?;
    stream.write_all(&vec![0; n_bytes - 1])?;
    wait(&mut stream, over);
    Ok(())
}

fn declared(address: SocketAddr, over: &AtomicBool) -> Result<(), Failure> {
    let mut stream = connect(address)?;
    stream.write_all(&upload(16 << 20))?;
    wait(&mut stream, over);
    Ok(())
}

fn kept(address: SocketAddr, over: &AtomicBool) -> Result<(), Failure> {
    let mut streams = Vec::new();
    for _ in 0..275 {
        let mut stream = connect(address)?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: bench\r\n\r\n")?;
        let _answered = stream.read(&mut [0; 1024]);
        streams.push(stream);
    }
    while !over.load(Ordering::Relaxed) {
        thread::sleep(GLANCE);
    }
    Ok(())
}

fn refused(address: SocketAddr, over: &AtomicBool) -> Result<(), Failure> {
    let mut stream = connect(address)?;
    let requests = post("/v1/text/sentiment?modle=x", "text/plain", "", b"fine").repeat(16);
    let mut dropped = [0; 64 << 10];
    while !over.load(Ordering::Relaxed) {
        stream.write_all(&requests)?;
        let _some = stream.read(&mut dropped)?;
    }
    Ok(())
}
