//! A caller on a thread of its own, over blocking sockets: no event loop stands between it and the clock.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::support::client::{Failure, Head};

/// Longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A kept-alive connection.
pub(crate) struct Probe {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Probe {
    pub(crate) fn connect(address: SocketAddr) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream, buffer: Vec::with_capacity(64 << 10) })
    }

    /// Sends a request and gives the head of its answer, once all of that is there.
    pub(crate) fn ask(&mut self, request: &[u8]) -> Result<Head, Failure> {
        self.stream.write_all(request)?;
        self.buffer.clear();
        let mut chunk = [0; 16 << 10];
        loop {
            let n_bytes = self.stream.read(&mut chunk)?;
            if n_bytes == 0 {
                return Err("the server closed the connection".into());
            }
            self.buffer.extend_from_slice(&chunk[..n_bytes]);
            if let Some(head) = Head::read(&self.buffer)?
                && self.buffer.len() >= head.body.end
            {
                return Ok(head);
            }
        }
    }

    /// Sends a request and gives the body of its answer, which has to have status 200.
    pub(crate) fn body(&mut self, request: &[u8]) -> Result<Bytes, Failure> {
        let head = self.ask(request)?;
        if head.status != 200 {
            return Err(format!("answered {}", head.status).into());
        }
        Ok(Bytes::copy_from_slice(&self.buffer[head.body]))
    }

    /// Gets a page.
    pub(crate) fn get(&mut self, path: &str) -> Result<String, Failure> {
        let body = self.body(format!("GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n").as_bytes())?;
        Ok(String::from_utf8(body.into())?)
    }
}

/// How long a thread that asked to be woken after `time` was not: what the machine alone adds to
/// whatever a caller sees.
pub(crate) fn oversleep(time: Duration) -> Duration {
    let began = Instant::now();
    thread::sleep(time);
    began.elapsed().saturating_sub(time)
}

/// What one look at a path took, from the connect to the last byte. A connection of its own, as
/// orchestrators make them.
pub(crate) fn look(address: SocketAddr, path: &str) -> Result<Duration, Failure> {
    let began = Instant::now();
    Probe::connect(address)?.get(path)?;
    Ok(began.elapsed())
}
