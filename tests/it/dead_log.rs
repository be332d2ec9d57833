//! A log that nobody reads, that has gone, or whose disk is full: the server serves and stops as ever.

use std::{
    fs::File,
    io::{self, Read},
    process::Stdio,
};

use crate::support::{
    client::{Connection, exchange, get, metric, post},
    process::Lepton,
};

const TEXT: &str = "/v1/text/sentiment";

/// More lines than a pipe and the buffer before it hold together: each is over a hundred bytes.
const MANY: usize = 20_000;

/// Requests that each leave a line, on kept connections, and an answer to each.
fn ask_much(server: &Lepton) {
    let mut connection = Connection::open(server.address);
    for n in 0..MANY {
        let answered = connection.exchange(&get("/no/such/path")).expect("an answer");
        assert_eq!(answered.status, 404, "request {n}");
    }
}

/// Asks with a log at `level` that goes to `log`, and stops in order: everything is answered.
fn serves_with_its_log_at(log: impl Into<Stdio>, level: &str) {
    let mut server = Lepton::start_logging_to(log, &[("LEPTON_LOG_FILTER", level)]);
    ask_much(&server);
    assert_eq!(exchange(server.address, &get("/healthz")).status, 200);
    assert_eq!(exchange(server.address, &post(TEXT, "text/plain", b"fine")).status, 200);
    assert!(metric(server.address, "lepton_log_lines_lost_total") > 0.0);
    let mut last = Connection::open(server.address);
    last.send(&post(TEXT, "text/plain", b"A stop loses nothing.")).unwrap();
    server.signal("TERM");
    assert_eq!(last.receive().unwrap().status, 200);
    assert!(server.wait().success());
}

#[test]
fn a_log_that_nobody_reads_blocks_nothing() {
    let (_unread, log) = io::pipe().unwrap();
    serves_with_its_log_at(log, "info");
}

#[test]
fn a_log_that_was_full_before_the_start_blocks_nothing() {
    // At this level the log is longer than a pipe before the first request.
    let (_unread, log) = io::pipe().unwrap();
    serves_with_its_log_at(log, "trace");
}

#[test]
fn a_log_whose_reader_has_gone_ends_nothing() {
    let (gone, log) = io::pipe().unwrap();
    drop(gone);
    serves_with_its_log_at(log, "info");
    // In the middle of a line, with requests in flight.
    let (mut reader, log) = io::pipe().unwrap();
    let mut server = Lepton::start_logging_to(log, &[]);
    reader.read_exact(&mut [0; 10]).unwrap();
    let mut waiting: Vec<Connection> = (0..8).map(|_| Connection::open(server.address)).collect();
    for connection in &mut waiting {
        connection.send(&post(TEXT, "text/plain", b"In flight.")).unwrap();
    }
    drop(reader);
    for mut connection in waiting {
        assert_eq!(connection.receive().unwrap().status, 200);
    }
    server.signal("TERM");
    assert!(server.wait().success());
}

#[test]
fn a_log_on_a_full_disk_ends_nothing() {
    // The device that is always full.
    serves_with_its_log_at(File::options().write(true).open("/dev/full").unwrap(), "info");
}

#[test]
fn what_was_logged_last_is_written_before_the_process_ends() {
    let mut server = Lepton::start();
    assert_eq!(exchange(server.address, &get("/no/such/path")).status, 404);
    server.signal("TERM");
    assert!(server.wait().success());
    let log = server.log();
    assert!(log.contains("status=404") && log.contains("every connection is closed"), "{log}");
}
