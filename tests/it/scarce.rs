//! What is scarce, and callers who hold it: places, room for bodies, memory, descriptors, the thread that moves
//! bytes. Each of them does its worst while another asks as ever.

use std::net::SocketAddr;

use lepton_testkit::pictures;

use crate::support::{
    client::{Connection, exchange, get, metric, post},
    process::Lepton,
};

const VISION: &str = "/v1/vision/classify";
const TEXT: &str = "/v1/text/sentiment";

/// Asks both models something sound, on connections of their own, and a probe.
fn assert_serves(address: SocketAddr) {
    let text = exchange(address, &post(TEXT, "text/plain", b"What a lovely day!"));
    assert_eq!(text.status, 200, "{}", text.text());
    let picture = pictures::jpeg(&pictures::draw(64, 48));
    let image = exchange(address, &post(VISION, "image/jpeg", &picture));
    assert_eq!(image.status, 200, "{}", image.text());
    assert_eq!(exchange(address, &get("/healthz")).status, 200);
}

/// The head of an upload, and of its body all but `missing` bytes.
fn upload(address: SocketAddr, n_bytes: usize, missing: usize) -> Connection {
    let mut connection = Connection::open(address);
    let head = format!(
        "POST {VISION}?model=face HTTP/1.1\r\nhost: t\r\ncontent-type: image/jpeg\r\nx-deadline-ms: 60000\r\n\
         content-length: {n_bytes}\r\n\r\n"
    );
    connection.send(head.as_bytes()).unwrap();
    // Some are refused before they have sent everything.
    let _refused = connection.send(&vec![0; n_bytes - missing]);
    connection
}

#[test]
fn uploads_that_stall_keep_nobody_out_and_end() {
    let server = Lepton::start();
    // Each fits into what is left, and all of them are more than there is.
    let mut stalled: Vec<Connection> = (0..8).map(|_| upload(server.address, 16 << 20, 1)).collect();
    for _ in 0..20 {
        assert_serves(server.address);
    }
    for connection in &mut stalled {
        let answer = connection.receive().unwrap();
        assert!(matches!(answer.status, 408 | 503), "{} {}", answer.status, answer.text());
    }
    assert_serves(server.address);
    // What they held is there again.
    let whole = upload(server.address, 16 << 20, 0).receive().unwrap();
    assert!(matches!(whole.status, 400 | 415), "{} {}", whole.status, whole.text());
}

#[test]
fn the_lowest_rate_is_a_setting() {
    let server =
        Lepton::start_with(&[("LEPTON_SERVER_BODY_RATE", "0B"), ("LEPTON_SERVER_BODY_TIMEOUT", "7s")]);
    let answer = upload(server.address, 1000, 1).receive().unwrap();
    assert_eq!((answer.status, answer.problem().as_str()), (408, "request-timeout"));
    assert!(answer.text().contains("7000 ms"), "the body's time, not its rate: {}", answer.text());
}

#[test]
fn what_is_declared_and_not_sent_takes_no_memory() {
    // Three times as much as may be addressed is declared.
    let server = Lepton::start_within("-v 2000000", &[]);
    let declared: Vec<Connection> = (0..400).map(|_| upload(server.address, 16 << 20, 16 << 20)).collect();
    for _ in 0..5 {
        assert_serves(server.address);
    }
    drop(declared);
}

#[test]
fn connections_fit_into_the_descriptors_that_there_are() {
    // A soft limit is raised, a hard one is fitted into.
    let server = Lepton::start_within("-S -n 64", &[]);
    let kept: Vec<Connection> = (0..200).map(|_| Connection::open(server.address)).collect();
    assert_serves(server.address);
    drop(kept);
    let server = Lepton::start_within("-n 120", &[]);
    assert!(server.log().contains("server.max_connections"), "{}", server.log());
    let mut kept = Vec::new();
    for _ in 0..200 {
        let mut connection = Connection::open(server.address);
        assert_eq!(connection.exchange(&get("/healthz")).unwrap().status, 200);
        kept.push(connection);
    }
    assert_serves(server.address);
}

#[test]
fn kept_connections_make_way_and_nobody_shuts_the_probes_out() {
    let server = Lepton::start_with(&[("LEPTON_SERVER_MAX_CONNECTIONS", "8")]);
    let mut kept = Vec::new();
    for _ in 0..40 {
        let mut connection = Connection::open(server.address);
        assert_eq!(connection.exchange(&get("/healthz")).unwrap().status, 200);
        kept.push(connection);
        assert_serves(server.address);
    }
    // In every place somebody sends a body, and none of it comes.
    let _busy: Vec<Connection> = (0..8).map(|_| upload(server.address, 100, 1)).collect();
    let mut hogs = Vec::new();
    for _ in 0..48 {
        hogs.push(upload(server.address, 10_000_000, 10_000_000));
        hogs.push(Connection::open(server.address));
        assert_eq!(exchange(server.address, &get("/healthz")).status, 200);
    }
    assert!(metric(server.address, "lepton_connection_faults_total{fault=\"made-way\"}") > 0.0);
}

#[test]
fn requests_sent_by_the_thousand_at_once_are_answered_one_by_one() {
    let server = Lepton::start();
    let mut connection = Connection::open(server.address);
    // More than a buffer of the server holds; what is answered is read meanwhile.
    for _ in 0..10 {
        connection.send(&get("/metrics").repeat(40)).unwrap();
        connection.send(&get("/healthz").repeat(400)).unwrap();
        assert_serves(server.address);
        for n in 0..440 {
            let answer = connection.receive().unwrap();
            assert_eq!((answer.status, answer.body.starts_with(b"# HELP")), (200, n < 40));
        }
    }
}

#[test]
fn a_body_in_chunks_of_a_byte_is_read_like_any_other() {
    let server = Lepton::start();
    let mut connection = Connection::open(server.address);
    let head = format!(
        "POST {TEXT} HTTP/1.1\r\nhost: t\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    connection.send(head.as_bytes()).unwrap();
    for _ in 0..50 {
        connection.send(&b"1\r\na\r\n1\r\n \r\n".repeat(1000)).unwrap();
        assert_eq!(exchange(server.address, &get("/healthz")).status, 200);
    }
    connection.send(b"0\r\n\r\n").unwrap();
    let answer = connection.receive().unwrap();
    assert_eq!((answer.status, answer.json()["results"][0]["truncated"].as_bool()), (200, Some(true)));
}

/// What no route ever sees: how it is answered, and how it is counted.
const BELOW: [(&str, &[u8], u16, &str); 4] = [
    ("no HTTP", b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400, "malformed-head"),
    ("a head that is none", b"GET /healthz\r\n\r\n", 400, "malformed-head"),
    ("a header without a name", b"GET /healthz HTTP/1.1\r\n: x\r\n\r\n", 400, "malformed-head"),
    (
        "two lengths",
        b"POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        400,
        "malformed-head",
    ),
];

#[test]
fn what_is_refused_below_the_routes_is_counted_and_logged() {
    let server = Lepton::start();
    let faults =
        |name: &str| metric(server.address, &format!("lepton_connection_faults_total{{fault=\"{name}\"}}"));
    let requests = |status: u16| {
        metric(server.address, &format!("lepton_http_requests_total{{route=\"none\",status=\"{status}\"}}"))
    };
    let long = |head: &str| [head.as_bytes(), &b"x".repeat(300_000), b"\r\n\r\n"].concat();
    let too_large = [
        ("a header of 300 kB", long("GET / HTTP/1.1\r\nhost: t\r\nx: "), 431, "head-too-large"),
        (
            "a hundred and more headers",
            [&b"GET / HTTP/1.1\r\nhost: t\r\n"[..], &b"x: y\r\n".repeat(300), b"\r\n"].concat(),
            431,
            "head-too-large",
        ),
    ];
    let below = BELOW.map(|(name, bytes, status, fault)| (name, bytes.to_vec(), status, fault));
    for (name, bytes, status, fault) in below.into_iter().chain(too_large) {
        let (n_faults, n_requests) = (faults(fault), requests(status));
        let mut connection = Connection::open(server.address);
        let _cut_off = connection.send(&bytes);
        // Bytes that were not read may reset the connection before its answer is.
        if let Ok(answer) = connection.receive() {
            assert_eq!(answer.status, status, "{name}");
        }
        // It is counted once the connection has ended.
        let counted = (0..100_000).any(|_| faults(fault) > n_faults && requests(status) > n_requests);
        assert!(counted, "{name}");
    }
    server.wait_for_log("fault=\"head-too-large\"");
    let log = server.log();
    let line = log.lines().find(|line| line.contains("fault=\"malformed-head\"")).expect("a line");
    assert!(line.contains("peer=127.0.0.1:") && line.contains("status=400"), "{line}");
}

#[test]
fn a_host_that_is_missing_or_there_twice_is_refused() {
    let server = Lepton::start_with(&[("LEPTON_LOG_PEER", "none")]);
    for (head, status, says) in [
        ("GET /healthz HTTP/1.1\r\n", 400, "missing"),
        ("GET /healthz HTTP/1.1\r\nhost: a\r\nhost: a\r\n", 400, "more than once"),
        ("GET /healthz HTTP/1.1\r\nhost: a/b\r\n", 400, "not a host"),
        ("GET /no HTTP/1.1\r\n", 400, "missing"),
        ("GET /healthz HTTP/1.1\r\nhost:\r\n", 200, ""),
        ("GET /healthz HTTP/1.0\r\n", 200, ""),
    ] {
        let mut connection = Connection::open(server.address);
        let answer = connection.exchange(format!("{head}\r\n").as_bytes()).unwrap();
        assert_eq!(answer.status, status, "{head:?}: {}", answer.text());
        assert!(answer.text().contains(says), "{head:?}: {}", answer.text());
        assert!(answer.header("x-request-id").is_some());
    }
    server.wait_for_log("refused");
    assert!(!server.log().contains("peer="), "{}", server.log());
}
