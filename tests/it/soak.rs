//! Many callers at once: every answer belongs to its own input, and a stop loses nothing.

use std::{
    net::SocketAddr,
    sync::{
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use fastrand::Rng;
use lepton_testkit::pictures;
use serde_json::{Value, json};

use crate::support::{
    client::{Connection, exchange, get, multipart, post},
    process::Lepton,
};

const CALLERS: usize = 64;
const WORDS: [&str; 12] =
    ["a", "truly", "wonderful", "dull", "film", "with", "awful", "acting", "and", "great", "music", "never"];

/// A sound request and the answer that it got alone.
struct Known {
    request: Vec<u8>,
    answer: Value,
}

/// Requests of many kinds, no two with the same input.
fn sound_requests() -> Vec<Vec<u8>> {
    let mut requests = Vec::new();
    for i in 0..40usize {
        let words: Vec<&str> = (0..=i * 2).map(|k| WORDS[(i * 5 + k * 7 + k * k) % WORDS.len()]).collect();
        let text = words.join(" ");
        let body = match i % 3 {
            0 => json!({ "text": text }),
            _ => json!({ "texts": [text, WORDS[i % 12], format!("{text}!")] }),
        };
        requests.push(post("/v1/text/sentiment", "application/json", body.to_string().as_bytes()));
    }
    for i in 0..24u32 {
        let picture = pictures::draw(40 + i * 5, 30 + i * 3);
        requests.push(match i % 3 {
            0 => post("/v1/vision/classify", "image/jpeg", &pictures::jpeg(&picture)),
            1 => post("/v1/vision/classify", "image/png", &pictures::png(&picture)),
            _ => {
                let (kind, body) =
                    multipart(&[("image", &pictures::webp(&picture)), ("image", &pictures::jpeg(&picture))]);
                post("/v1/vision/classify", &kind, &body)
            }
        });
    }
    requests
}

fn bad_requests() -> Vec<Vec<u8>> {
    vec![
        post("/v1/text/sentiment", "application/json", b"{\"text\": "),
        post("/v1/text/sentiment?model=none", "text/plain", b"fine"),
        post("/v1/vision/classify", "image/jpeg", b"\xff\xd8\xff\xe0 no picture"),
        post("/v1/vision/classify", "image/png", &pictures::png_header(30_000, 30_000)),
        get("/nowhere"),
    ]
}

/// Says whether two answers are the same but for rounding.
fn agree(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            (a.as_f64().unwrap_or(f64::NAN) - b.as_f64().unwrap_or(f64::NAN)).abs() <= 1e-4
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| agree(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| agree(value, other)))
        }
        (a, b) => a == b,
    }
}

/// A server that accepts everything: what is slow on a busy machine is not refused.
fn patient_server() -> Lepton {
    Lepton::start_with(&[("LEPTON_POOL_DEADLINE", "10m"), ("LEPTON_POOL_MAX_DEADLINE", "10m")])
}

fn known(address: SocketAddr) -> Vec<Known> {
    let alone = |request: Vec<u8>| {
        let response = exchange(address, &request);
        assert_eq!(response.status, 200, "{}", response.text());
        Known { answer: response.json(), request }
    };
    sound_requests().into_iter().map(alone).collect()
}

#[test]
fn ten_thousand_mixed_requests_and_no_answer_is_lost_or_crossed() {
    const REQUESTS: usize = 10_000;
    let mut server = patient_server();
    let address = server.address;
    let (known, bad) = (known(address), bad_requests());
    let (next, answered, refused, left) =
        (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let caller = |seed: u64| {
        let mut rng = Rng::with_seed(seed);
        let mut connection = Connection::open(address);
        while next.fetch_add(1, Ordering::Relaxed) < REQUESTS {
            let Known { request, answer } = &known[rng.usize(..known.len())];
            match rng.usize(..100) {
                0..5 => {
                    let response = connection.exchange(&bad[rng.usize(..bad.len())]).expect("a refusal");
                    assert!((400..500).contains(&response.status), "{}", response.status);
                    if response.header("connection") == Some("close") {
                        connection = Connection::open(address);
                    }
                    refused.fetch_add(1, Ordering::Relaxed);
                }
                5..10 => {
                    let sent =
                        connection.send(&request[..request.len() - rng.usize(..2) * request.len() / 2]);
                    sent.expect("the server reads");
                    connection = Connection::open(address);
                    left.fetch_add(1, Ordering::Relaxed);
                }
                _ => {
                    let response = connection.exchange(request).expect("an answer");
                    assert_eq!(response.status, 200, "{}", response.text());
                    assert!(agree(&response.json(), answer), "{}\nalone: {answer}", response.text());
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    };
    thread::scope(|scope| {
        for seed in 0..CALLERS as u64 {
            scope.spawn(move || caller(seed));
        }
    });
    let counts = [&answered, &refused, &left].map(|count| count.load(Ordering::Relaxed));
    assert_eq!(counts.iter().sum::<usize>(), REQUESTS);
    assert!(counts[1] > 300 && counts[2] > 300, "{counts:?}");
    server.signal("TERM");
    assert!(server.wait().success());
    let log = server.log();
    assert!(!log.contains("ERROR"), "{log}");
}

#[test]
fn a_stop_in_the_middle_of_load_answers_everything_it_accepted() {
    let mut server = patient_server();
    let address = server.address;
    let known = known(address);
    let (n_alone, complete, partial) = (known.len(), AtomicUsize::new(0), AtomicUsize::new(0));
    let stopped = AtomicBool::new(false);
    let (say_enough, enough) = mpsc::channel();
    let caller = |seed: u64, say_enough: mpsc::Sender<()>| {
        let mut rng = Rng::with_seed(seed);
        let Ok(mut connection) = Connection::try_open(address) else { return };
        loop {
            let Known { request, answer } = &known[rng.usize(..known.len())];
            // A kept-alive connection may be closed between two requests; whatever is answered is
            // answered in full.
            match connection.exchange(request) {
                Ok(response) if response.status == 200 => {
                    assert!(agree(&response.json(), answer), "{}\nalone: {answer}", response.text());
                    if complete.fetch_add(1, Ordering::SeqCst) == 1000 {
                        say_enough.send(()).expect("the test waits");
                    }
                    if response.header("connection") == Some("close") {
                        return;
                    }
                }
                Ok(response) => panic!("{} {}", response.status, response.text()),
                Err(error) => {
                    assert!(stopped.load(Ordering::SeqCst), "cut off before the stop: {error}");
                    let clean = [
                        std::io::ErrorKind::UnexpectedEof,
                        std::io::ErrorKind::ConnectionReset,
                        std::io::ErrorKind::BrokenPipe,
                    ];
                    if !clean.contains(&error.kind()) {
                        partial.fetch_add(1, Ordering::SeqCst);
                    }
                    return;
                }
            }
        }
    };
    let caller = &caller;
    thread::scope(|scope| {
        for seed in 0..CALLERS as u64 {
            let say_enough = say_enough.clone();
            scope.spawn(move || caller(seed, say_enough));
        }
        drop(say_enough);
        // Callers go on until the stop, so there is a thousandth.
        enough.recv().expect("a caller says so");
        stopped.store(true, Ordering::SeqCst);
        server.signal("TERM");
    });
    assert!(server.wait().success());
    let log = server.log();
    // The server counts the answers that it made; the callers, those that they read to the end.
    let made = log.lines().filter(|line| line.contains("status=200")).count();
    assert_eq!(partial.load(Ordering::SeqCst), 0);
    assert_eq!(made, complete.load(Ordering::SeqCst) + n_alone, "made and received");
}
