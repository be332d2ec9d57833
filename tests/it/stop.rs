//! Signals, from the moment that the server listens to its end.

use std::{fs, path::Path};

use crate::support::{
    client::{Connection, exchange, get, post},
    models,
    process::Lepton,
};

const TEXT: &str = "/v1/text/sentiment";

/// Sends a request without the last byte of its body, once it is being read.
fn in_flight(server: &Lepton) -> Connection {
    let mut connection = Connection::open(server.address);
    let mut request = post(TEXT, "text/plain", b"A stop loses nothing");
    request.truncate(request.len() - 1);
    connection.send(&request).unwrap();
    // Only when that is read is the next one answered.
    assert_eq!(exchange(server.address, &get("/healthz")).status, 200);
    connection
}

#[test]
fn each_signal_stops_in_order() {
    for signal in ["TERM", "INT", "HUP"] {
        let mut server = Lepton::start();
        let mut connection = in_flight(&server);
        server.signal(signal);
        server.wait_for_log("no longer ready");
        connection.send(b"g").unwrap();
        assert_eq!(connection.receive().unwrap().status, 200, "{signal}");
        assert!(server.wait().success(), "{signal}");
        assert!(server.log().contains(&format!("signal=\"SIG{signal}\"")), "{}", server.log());
    }
}

#[test]
fn a_second_signal_exits_at_once() {
    for second in ["TERM", "INT"] {
        let mut server = Lepton::start();
        let _unfinished = in_flight(&server);
        server.signal("HUP");
        server.wait_for_log("no longer ready");
        server.signal(second);
        assert_eq!(server.wait().code(), Some(130), "{second}");
        assert!(server.log().contains("exiting at once"), "{}", server.log());
    }
}

/// A folder of as many copies of a model, which take a while to load.
fn copies(n: usize) -> tempfile::TempDir {
    let shipped = models().join("face");
    let folder = tempfile::tempdir().unwrap();
    for idx in 0..n {
        let copy = folder.path().join(format!("face-{idx}"));
        fs::create_dir_all(copy.join("1")).unwrap();
        for file in ["model.toml", "labels.txt", "1/model.onnx"].map(Path::new) {
            fs::copy(shipped.join(file), copy.join(file)).unwrap();
        }
    }
    folder
}

#[test]
fn a_stop_while_models_load_waits_for_none_of_them() {
    let folder = copies(60);
    for signal in ["TERM", "HUP"] {
        let mut server = Lepton::start_loading(folder.path(), &[("LEPTON_LOG_FILTER", "debug")]);
        server.wait_for_log("listening");
        server.signal(signal);
        assert!(server.wait().success(), "{}", server.log());
        assert!(server.log().contains("every connection is closed"), "{}", server.log());
    }
}
