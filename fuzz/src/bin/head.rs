//! Heads of requests, and all else that a caller may write to a socket: the server on a loopback address.
#![cfg_attr(feature = "libfuzzer", no_main)]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::LazyLock,
    time::Duration,
};

use lepton::{config::Config, server::Server};

/// How long the server may be silent: longer than an answer takes, shorter than a kept connection lives.
const PATIENCE: Duration = Duration::from_millis(200);

static ADDRESS: LazyLock<SocketAddr> = LazyLock::new(|| {
    let (send, receive) = std::sync::mpsc::channel();
    let serve = move || {
        let runtime = lepton_fuzz::runtime();
        let mut config = Config::default();
        config.server.header_timeout = Duration::from_millis(20);
        config.server.body_timeout = Duration::from_millis(20);
        let state = lepton_fuzz::state(&runtime, config);
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a free port");
        send.send(listener.local_addr().expect("an address")).expect("a target that waits");
        runtime.block_on(Server::new(state).serve(listener, std::future::pending())).expect("a server");
    };
    std::thread::Builder::new().name("server".to_owned()).spawn(serve).expect("a thread");
    receive.recv().expect("an address")
});

/// Writes `bytes` on a connection of its own and reads until the server closes it, or is silent.
fn exchange(bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(*ADDRESS).expect("the server accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    // The server may refuse before it has read all.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    // Reset where the server refused early; silent where it keeps the connection.
    let _ = stream.read_to_end(&mut answer);
    answer
}

libfuzzer_sys::fuzz_target!(
    init: { LazyLock::force(&ADDRESS); },
    |data: &[u8]| {
        let answer = exchange(data);
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{}", answer.escape_ascii());
        assert!(!answer.starts_with(b"HTTP/1.1 500"), "{}", answer.escape_ascii());
        let health = exchange(b"GET /healthz HTTP/1.1\r\nhost: fuzz\r\nconnection: close\r\n\r\n");
        assert!(health.starts_with(b"HTTP/1.1 200"), "{}", health.escape_ascii());
    }
);

#[cfg(not(feature = "libfuzzer"))]
fn main() {}
