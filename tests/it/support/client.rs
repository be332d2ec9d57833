//! A small HTTP/1.1 client over blocking sockets: what it sends is exactly what a test wrote.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::Value;

/// Longer than any answer takes: a test that waits this long has found a hang.
const PATIENCE: Duration = Duration::from_secs(60);

/// One response.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body of UTF-8")
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e} in {:?}", self.text()))
    }

    /// The last part of the problem's type, as in `too-large`; empty where it is no problem.
    pub fn problem(&self) -> String {
        let json: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        json["type"].as_str().and_then(|t| t.rsplit('/').next()).unwrap_or_default().to_owned()
    }
}

/// A kept-alive connection.
pub struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    /// Connects.
    pub fn open(address: SocketAddr) -> Self {
        Self::try_open(address).expect("the server accepts")
    }

    /// Connects, if the server accepts.
    pub fn try_open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Reads one response.
    pub fn receive(&mut self) -> io::Result<Response> {
        let mut response = self.receive_without_body()?;
        let length = response.header("content-length").and_then(|text| text.parse().ok());
        response.body = vec![0; length.expect("every answer says its length")];
        self.stream.read_exact(&mut response.body)?;
        Ok(response)
    }

    /// Reads one response that has no body, such as 204.
    pub fn receive_without_body(&mut self) -> io::Result<Response> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("not a status line: {line:?}")))?;
        if status == 100 {
            self.stream.read_line(&mut line)?;
            return self.receive_without_body();
        }
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line)?;
            match line.trim_end().split_once(':') {
                Some((name, value)) => headers.push((name.to_owned(), value.trim().to_owned())),
                None => break,
            }
        }
        Ok(Response { status, headers, body: Vec::new() })
    }

    /// Sends a request and reads its answer, also where the server answers before it has read all.
    pub fn exchange(&mut self, request: &[u8]) -> io::Result<Response> {
        let sent = self.send(request);
        self.receive().map_err(|error| sent.err().unwrap_or(error))
    }
}

/// The value of a metric without labels, or with those that are part of `name`.
pub fn metric(address: SocketAddr, name: &str) -> f64 {
    let metrics = exchange(address, &get("/metrics"));
    let mut lines = metrics.text().lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(0.0, |value| value.parse().expect("a number"))
}

/// Sends one request on a connection of its own.
pub fn exchange(address: SocketAddr, request: &[u8]) -> Response {
    Connection::open(address).exchange(request).expect("an answer")
}

/// Writes a GET request.
pub fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n").into_bytes()
}

/// Writes a POST request with its length.
pub fn post(path: &str, content_type: &str, body: &[u8]) -> Vec<u8> {
    post_with(path, &[("content-type", content_type)], body)
}

/// Writes a POST request with its length and these headers.
pub fn post_with(path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut request = format!("POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    let mut request = request.into_bytes();
    request.extend_from_slice(b"\r\n");
    request.extend_from_slice(body);
    request
}

/// Writes a multipart body of parts with these names and contents, and its content type.
pub fn multipart(parts: &[(&str, &[u8])]) -> (String, Vec<u8>) {
    let boundary = "----lepton-test-boundary";
    let mut body = Vec::new();
    for (name, content) in parts {
        let head = format!(
            "--{boundary}\r\ncontent-disposition: form-data; name=\"{name}\"; filename=\"x\"\r\n\r\n"
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    (format!("multipart/form-data; boundary={boundary}"), body)
}
