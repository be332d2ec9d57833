//! `lepton bench` against the real server, and against servers that no client should meet.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Command, Output, Stdio},
    thread,
};

use serde_json::{Value, json};

use crate::support::{
    client::{exchange, get},
    process::Lepton,
};

const TEXT: &str = "/v1/text/sentiment";

fn command(url: &str, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lepton"));
    command.arg("bench").arg(url).args(words).current_dir(env!("CARGO_TARGET_TMPDIR"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn said(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// Measures, with the JSON that was written.
fn bench(dir: &Path, url: &str, words: &[&str]) -> (Output, Value) {
    let json = dir.join("out.json");
    let output = command(url, words).arg("--json").arg(&json).output().unwrap();
    let written = fs::read(&json).unwrap_or_else(|e| panic!("{e}: {:?}", said(&output)));
    (output, serde_json::from_slice(&written).unwrap_or_default())
}

fn n(run: &Value, name: &str) -> u64 {
    run["requests"][name].as_u64().unwrap_or_else(|| panic!("no number of {name} in {run}"))
}

/// Each request of each run has one fate.
fn assert_adds_up(report: &Value) {
    let runs = report["runs"].as_array().unwrap();
    assert!(!runs.is_empty());
    for run in runs {
        let sum = n(run, "ok") + n(run, "refused") + n(run, "failed") + n(run, "unsent") + n(run, "cut_off");
        assert_eq!(n(run, "intended"), sum, "{}", run["requests"]);
        let buckets = run["latency_histogram"].as_array().unwrap();
        assert_eq!(buckets.iter().map(|bucket| bucket[1].as_u64().unwrap()).sum::<u64>(), n(run, "ok"));
    }
}

/// Requests of a route that the server counted, with whatever status.
fn counted(server: &Lepton, route: &str) -> u64 {
    let metrics = exchange(server.address, &get("/metrics"));
    let lines = metrics.text().lines().filter(|line| line.starts_with("lepton_http_requests_total"));
    let lines = lines.filter(|line| line.contains(&format!("\"{route}\"")));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

fn texts(dir: &Path) -> String {
    let folder = dir.join("texts");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a.json"), json!({"text": "What a lovely day!"}).to_string()).unwrap();
    fs::write(folder.join("b.txt"), "dull, and long").unwrap();
    folder.to_str().unwrap().to_owned()
}

#[test]
fn a_closed_loop_counts_what_the_server_counts_and_writes_what_it_says() {
    let (server, dir) = (Lepton::start(), tempfile::tempdir().unwrap());
    let url = format!("http://{}{TEXT}", server.address);
    let (bodies, page) = (texts(dir.path()), dir.path().join("out.html"));
    let before = counted(&server, TEXT);
    let words =
        ["--body", &bodies, "--connections", "1,4", "--duration", "500ms", "--warm-up", "0s", "--report"];
    let words = [&words[..], &[page.to_str().unwrap()]].concat();
    let (output, report) = bench(dir.path(), &url, &words);
    let (table, errors) = said(&output);
    assert!(output.status.success(), "{table}{errors}");
    assert_adds_up(&report);
    let runs = report["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 2);
    let ok: u64 = runs.iter().map(|run| n(run, "ok")).sum();
    assert!(ok > 10, "{table}");
    assert_eq!(counted(&server, TEXT) - before, ok, "each request was sent and answered once");
    assert_eq!(runs[1]["connections"], json!({"most": 4, "opened": 4}), "connections are kept");
    assert_eq!(report["different_requests"], 2);

    assert!(table.starts_with(&format!("POST {url}, 2 bodies of 43 bytes together\nLOAD ")), "{table}");
    assert!(table.contains("\n1 connection ") && table.contains("\n4 connections "), "{table}");
    let page = fs::read_to_string(page).unwrap();
    for part in ["<!doctype html>", "Latency over throughput", "Latency by percentile", "</html>"] {
        assert!(page.contains(part), "the page has no {part}");
    }
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    assert!(!page.contains("<script") && !page.contains("src=") && !page.contains("NaN"), "{page}");
}

#[test]
fn an_open_loop_sends_all_that_arrive_and_the_server_sees_the_deadline() {
    let (server, dir) = (Lepton::start(), tempfile::tempdir().unwrap());
    let url = format!("http://{}{TEXT}", server.address);
    let bodies = texts(dir.path());
    let before = counted(&server, TEXT);
    let words = ["--body", &bodies, "--rate", "100,200", "--duration", "500ms", "--warm-up", "0s"];
    let words = [&words[..], &["--deadline", "5s", "--seed", "7"]].concat();
    let (output, report) = bench(dir.path(), &url, &words);
    assert!(output.status.success(), "{:?}", said(&output));
    assert_adds_up(&report);
    let runs = report["runs"].as_array().unwrap();
    let intended: u64 = runs.iter().map(|run| n(run, "intended")).sum();
    assert_eq!(runs.iter().map(|run| n(run, "sent") + n(run, "unsent")).sum::<u64>(), intended);
    let sent: u64 = runs.iter().map(|run| n(run, "sent")).sum();
    assert_eq!(counted(&server, TEXT) - before, sent);
    // The arrivals follow from the seed alone, whatever the server did.
    let (_, again) = bench(dir.path(), &url, &words);
    let intended = |report: &Value| {
        report["runs"].as_array().unwrap().iter().map(|run| n(run, "intended")).collect::<Vec<_>>()
    };
    assert_eq!(intended(&report), intended(&again));

    // No server can answer within a deadline that it refuses to read.
    let words = ["--body", &bodies, "--rate", "100", "--duration", "200ms", "--warm-up", "0s"];
    let words = [&words[..], &["--header", "x-deadline-ms: soon"]].concat();
    let (output, report) = bench(dir.path(), &url, &words);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).1.contains("no request was answered with 2xx"), "{:?}", said(&output));
    assert_eq!(report["runs"][0]["refused_by_status"]["400"], report["runs"][0]["requests"]["sent"]);
}

#[test]
fn recorded_arrivals_are_all_sent_and_end_the_measurement() {
    let (server, dir) = (Lepton::start(), tempfile::tempdir().unwrap());
    let arrivals = dir.path().join("arrivals");
    fs::write(&arrivals, "0\n0\n0.01\n0.02 # four\n").unwrap();
    let url = format!("http://{}/healthz", server.address);
    let (output, report) = bench(dir.path(), &url, &["--arrivals", arrivals.to_str().unwrap()]);
    assert!(output.status.success(), "{:?}", said(&output));
    assert_adds_up(&report);
    let run = &report["runs"][0];
    assert_eq!((n(run, "intended"), n(run, "ok"), run["end"].as_str()), (4, 4, Some("exhausted")));
}

#[test]
fn an_interruption_ends_early_and_still_tells() {
    let (server, dir) = (Lepton::start(), tempfile::tempdir().unwrap());
    let json = dir.path().join("out.json");
    let url = format!("http://{}/healthz", server.address);
    let mut command = command(&url, &["--duration", "1h", "--warm-up", "0s", "--connections", "2", "--json"]);
    let child = command.arg(&json).spawn().unwrap();
    while counted(&server, "/healthz") < 10 {
        thread::yield_now();
    }
    let sent = Command::new("kill").args(["-s", "INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{:?}", said(&output));
    let report: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    assert_adds_up(&report);
    assert_eq!(report["runs"][0]["end"], "interrupted");
    assert!(n(&report["runs"][0], "ok") >= 10);
}

#[test]
fn where_nobody_listens_the_error_says_so() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = command(&format!("http://{free}/"), &[]).output().unwrap();
    let (table, errors) = said(&output);
    assert_eq!((output.status.code(), table.as_str()), (Some(1), ""));
    assert!(
        errors.contains(&format!("cannot connect to {free}")) && errors.contains("is the server running?"),
        "{errors}"
    );
    let output = command("https://127.0.0.1/", &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).1.contains("TLS is not spoken"));
}

/// What a server does with a connection.
type Treat = fn(&mut TcpStream);

/// A server that treats every connection in the same way, until the process ends.
fn serve(treat: Treat) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let accept = move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let treated = thread::Builder::new().spawn(move || treat(&mut stream));
            drop(treated.unwrap());
        }
    };
    drop(thread::Builder::new().spawn(accept).unwrap());
    address
}

/// Reads until a request is over; false where the client has left.
fn read_request(stream: &mut TcpStream) -> bool {
    let (mut read, mut part) = (Vec::new(), [0; 1024]);
    while !read.ends_with(b"\r\n\r\n") {
        match stream.read(&mut part) {
            Ok(0) | Err(_) => return false,
            Ok(n) => read.extend_from_slice(&part[..n]),
        }
    }
    true
}

/// Answers every request of a connection with these bytes.
fn answer(stream: &mut TcpStream, bytes: &[u8]) {
    while read_request(stream) && stream.write_all(bytes).is_ok() {}
}

#[test]
fn a_server_that_misbehaves_is_told_by_how_and_hangs_nothing() {
    let cases: [(&str, Treat); 6] = [
        ("closed", |_stream| {}),
        ("closed", |stream| {
            read_request(stream);
        }),
        ("closed", |stream| {
            read_request(stream);
            let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf");
        }),
        ("malformed", |stream| answer(stream, b"220 mail.example.org ESMTP\r\n\r\n")),
        ("malformed", |stream| {
            answer(stream, b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n")
        }),
        ("timed_out", |stream| while read_request(stream) {}),
    ];
    for (number, (kind, treat)) in cases.into_iter().enumerate() {
        let (address, dir) = (serve(treat), tempfile::tempdir().unwrap());
        for load in [&["--connections", "3"][..], &["--rate", "100", "--connections", "3"]] {
            let words = ["--duration", "300ms", "--warm-up", "0s", "--timeout", "100ms"];
            let words = [&words[..], load].concat();
            let (output, report) = bench(dir.path(), &format!("http://{address}/"), &words);
            assert_eq!(output.status.code(), Some(1), "case {number}: {:?}", said(&output));
            assert_adds_up(&report);
            let run = &report["runs"][0];
            assert!(n(run, "failed") > 0 && n(run, "ok") == 0, "case {number}: {run}");
            let kinds = run["failed_by_kind"].as_object().unwrap();
            assert_eq!(kinds.keys().collect::<Vec<_>>(), [kind], "case {number}");
        }
    }
}

#[test]
fn every_way_to_end_an_answer_is_read() {
    let cases: [(&str, Treat); 4] = [
        ("a length", |stream| answer(stream, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")),
        ("chunks", |stream| {
            answer(stream, b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n");
        }),
        ("no body", |stream| answer(stream, b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 None\r\n\r\n")),
        ("the end of the connection", |stream| {
            read_request(stream);
            let _gone = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nok");
        }),
    ];
    for (name, treat) in cases {
        let (address, dir) = (serve(treat), tempfile::tempdir().unwrap());
        let words = ["--duration", "200ms", "--warm-up", "0s", "--connections", "2"];
        let (output, report) = bench(dir.path(), &format!("http://{address}/"), &words);
        assert!(output.status.success(), "{name}: {:?}", said(&output));
        assert_adds_up(&report);
        let run = &report["runs"][0];
        assert_eq!(n(run, "ok"), n(run, "intended"), "{name}: {run}");
        let opened = run["connections"]["opened"].as_u64().unwrap();
        let kept = if name == "the end of the connection" { n(run, "ok") } else { 2 };
        assert_eq!(opened, kept, "{name}");
    }
}
