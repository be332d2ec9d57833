//! Where requests go and what they say: written once, sent as they are.
//!
//! Invariant: a request holds no line break but its own, and its length is that of its body.

use std::{
    fmt, fs, io,
    net::{SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use bytes::Bytes;

use super::answer;

/// A URL of plain HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// `host` or `host:port`, as it stands in the Host header.
    authority: String,
    host: String,
    port: u16,
    /// Path and query, beginning with `/`.
    path: String,
}

const URL_EXPECTED: &str = "expected http://HOST:PORT/PATH";

impl Url {
    /// Path and query.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Finds the address of the host, the first one where there are several.
    pub fn resolve(&self) -> io::Result<SocketAddr> {
        let mut addresses = (self.host.as_str(), self.port).to_socket_addrs()?;
        addresses.next().ok_or_else(|| io::Error::other("the name has no address"))
    }
}

impl FromStr for Url {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        if url.starts_with("https://") {
            return Err(format!("TLS is not spoken; {URL_EXPECTED}, or measure behind what ends TLS"));
        }
        let rest = url.strip_prefix("http://").ok_or(URL_EXPECTED)?;
        if !rest.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!("a URL has no blanks and only ASCII, the rest as %XX; {URL_EXPECTED}"));
        }
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err("a user in the URL is not sent; say --header 'authorization: ...'".to_owned());
        }
        let (host, port) = match authority.rsplit_once(':') {
            // The last colon of [::1] is the address's own.
            Some((host, port)) if !port.ends_with(']') => {
                let port = port.parse().ok().filter(|port| *port > 0);
                (host, port.ok_or_else(|| format!("the port is not one from 1 to 65535; {URL_EXPECTED}"))?)
            }
            _ => (authority, 80),
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if bare.is_empty() {
            return Err(format!("there is no host; {URL_EXPECTED}"));
        }
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Self {
            authority: authority.to_owned(),
            host: bare.to_owned(),
            port,
            path: format!("{slash}{path}"),
        })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

/// What is sent with one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    pub bytes: Bytes,
    /// The value of Content-Type.
    pub content_type: String,
}

/// In which order bodies are sent, round and round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    AsGiven,
    /// In one order by chance, the same for the same seed.
    Shuffled {
        seed: u64,
    },
}

/// Reads bodies from files, and from the regular files of folders in the order of their names; hidden
/// ones are left out. The content type is `content_type`, or a guess from name and content. An error
/// names the file.
pub fn bodies(paths: &[PathBuf], content_type: Option<&str>) -> Result<Vec<Body>, String> {
    let mut bodies = Vec::new();
    for path in paths {
        let unreadable = |error: io::Error| format!("cannot read {}: {error}", path.display());
        if fs::metadata(path).map_err(unreadable)?.is_dir() {
            let entries = fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
            let mut files: Vec<PathBuf> =
                entries.map_err(unreadable)?.iter().map(fs::DirEntry::path).collect();
            files.retain(|file| file.is_file() && !is_hidden(file));
            files.sort();
            if files.is_empty() {
                return Err(format!(
                    "there is no file in the folder {}; expected one or more bodies",
                    path.display()
                ));
            }
            for file in files {
                bodies.push(read(&file, content_type)?);
            }
        } else {
            bodies.push(read(path, content_type)?);
        }
    }
    Ok(bodies)
}

fn is_hidden(file: &Path) -> bool {
    file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn read(file: &Path, content_type: Option<&str>) -> Result<Body, String> {
    let bytes = fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    let content_type = content_type.unwrap_or_else(|| guess(file, &bytes)).to_owned();
    Ok(Body { bytes: bytes.into(), content_type })
}

/// The content type of a file: by its content where that is certain, else by its name.
fn guess(file: &Path, bytes: &[u8]) -> &'static str {
    match bytes {
        [0xFF, 0xD8, 0xFF, ..] => return "image/jpeg",
        [0x89, b'P', b'N', b'G', ..] => return "image/png",
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => return "image/webp",
        _ => {}
    }
    let extension = file.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match extension.to_ascii_lowercase().as_str() {
        "jpg" | "jpeg" => "image/jpeg",
        "png" => "image/png",
        "webp" => "image/webp",
        "json" => "application/json",
        "txt" => "text/plain",
        _ if matches!(bytes.trim_ascii_start().first(), Some(b'{' | b'[')) => "application/json",
        _ => "application/octet-stream",
    }
}

/// What requests say besides their bodies.
#[derive(Debug, Clone, Default)]
pub struct Ask {
    /// The method; without it GET where there is no body, else POST.
    pub method: Option<String>,
    /// Headers by name and value. They replace those that are written otherwise.
    pub headers: Vec<(String, String)>,
    /// Told to the server as `x-deadline-ms`.
    pub deadline: Option<Duration>,
}

/// Where requests go, and the requests as they are sent.
#[derive(Debug, Clone)]
pub struct Target {
    pub(super) address: SocketAddr,
    pub(super) requests: Vec<Bytes>,
    pub(super) method: answer::Method,
    /// As in `POST http://127.0.0.1:8080/v1/text/sentiment`.
    name: String,
    n_body_bytes: usize,
}

impl Target {
    /// Writes a request for each body, in that order; one without a body where there is none. An error
    /// says what cannot be sent.
    pub fn new(url: &Url, address: SocketAddr, ask: &Ask, bodies: &[Body]) -> Result<Self, String> {
        let method = match &ask.method {
            Some(method) => method.to_ascii_uppercase(),
            None if bodies.is_empty() => "GET".to_owned(),
            None => "POST".to_owned(),
        };
        if !is_token(&method) || method == "CONNECT" {
            return Err(format!("the method is {method:?}; expected one as GET, POST or PUT"));
        }
        for (name, value) in &ask.headers {
            check_header(name, value)?;
        }
        let requests = match bodies {
            [] => vec![write(url, &method, ask, None)],
            bodies => bodies.iter().map(|body| write(url, &method, ask, Some(body))).collect(),
        };
        let n_body_bytes = bodies.iter().map(|body| body.bytes.len()).sum();
        let name = format!("{method} {url}");
        let method = if method == "HEAD" { answer::Method::Head } else { answer::Method::Other };
        Ok(Self { address, requests, method, name, n_body_bytes })
    }

    /// Brings the requests into an order.
    pub fn ordered(mut self, order: Order) -> Self {
        if let Order::Shuffled { seed } = order {
            fastrand::Rng::with_seed(seed).shuffle(&mut self.requests);
        }
        self
    }

    /// Method and URL.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many different requests there are, and the bytes of all their bodies.
    pub fn size(&self) -> (usize, usize) {
        (self.requests.len(), self.n_body_bytes)
    }
}

fn check_header(name: &str, value: &str) -> Result<(), String> {
    if !is_token(name) {
        return Err(format!("{name:?} is no name of a header; expected letters, digits and dashes"));
    }
    if ["content-length", "transfer-encoding"].iter().any(|own| own.eq_ignore_ascii_case(name)) {
        return Err(format!("the header {name} follows from the body and cannot be set"));
    }
    if !value.bytes().all(|byte| byte == b'\t' || (byte >= b' ' && byte != 0x7F)) {
        return Err(format!("the value of the header {name} holds a control character"));
    }
    Ok(())
}

fn is_token(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

fn write(url: &Url, method: &str, ask: &Ask, body: Option<&Body>) -> Bytes {
    let mut head = format!("{method} {} HTTP/1.1\r\n", url.path);
    let mut header = |name: &str, value: &str| {
        if !ask.headers.iter().any(|(own, _)| own.eq_ignore_ascii_case(name)) {
            head += &format!("{name}: {value}\r\n");
        }
    };
    header("host", &url.authority);
    if let Some(deadline) = ask.deadline {
        header("x-deadline-ms", &deadline.as_millis().to_string());
    }
    if let Some(body) = body {
        header("content-type", &body.content_type);
    }
    if body.is_some() || !matches!(method, "GET" | "HEAD" | "DELETE" | "OPTIONS" | "TRACE") {
        header("content-length", &body.map_or(0, |body| body.bytes.len()).to_string());
    }
    for (name, value) in &ask.headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += "\r\n";
    let mut request = head.into_bytes();
    request.extend_from_slice(body.map_or(&[], |body| &body.bytes));
    request.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    fn requests(ask: &Ask, bodies: &[Body]) -> Vec<String> {
        let target =
            Target::new(&url("http://h:1/a?b=c"), "127.0.0.1:1".parse().unwrap(), ask, bodies).unwrap();
        target.requests.iter().map(|request| String::from_utf8_lossy(request).into_owned()).collect()
    }

    #[test]
    fn urls_are_read_and_what_is_wrong_is_named() {
        for (text, host, port, path) in [
            ("http://localhost", "localhost", 80, "/"),
            ("http://127.0.0.1:8080/v1?x=y#z", "127.0.0.1", 8080, "/v1?x=y"),
            ("http://[::1]:81?q", "::1", 81, "/?q"),
            ("http://[::1]", "::1", 80, "/"),
        ] {
            let url = url(text);
            assert_eq!((url.host.as_str(), url.port, url.path()), (host, port, path), "{text}");
        }
        for (text, says) in [
            ("https://h/", "TLS"),
            ("localhost:8080", "expected http://"),
            ("http://", "no host"),
            ("http://:80/", "no host"),
            ("http://h:0/", "1 to 65535"),
            ("http://h:x/", "1 to 65535"),
            ("http://u:p@h/", "--header"),
            ("http://h/a b", "blanks"),
            ("http://h/\r\nx:y", "blanks"),
        ] {
            let error = text.parse::<Url>().unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn a_request_says_what_it_has_to_and_own_headers_win() {
        assert_eq!(requests(&Ask::default(), &[]), ["GET /a?b=c HTTP/1.1\r\nhost: h:1\r\n\r\n"]);
        let body = Body { bytes: "hi".into(), content_type: "text/plain".to_owned() };
        let ask = Ask { deadline: Some(Duration::from_millis(50)), ..Ask::default() };
        assert_eq!(
            requests(&ask, std::slice::from_ref(&body)),
            ["POST /a?b=c HTTP/1.1\r\nhost: h:1\r\nx-deadline-ms: 50\r\ncontent-type: text/plain\r\n\
              content-length: 2\r\n\r\nhi"]
        );
        let headers =
            vec![("Content-Type".to_owned(), "a/b".to_owned()), ("HOST".to_owned(), "x".to_owned())];
        let ask = Ask { method: Some("put".to_owned()), headers, ..Ask::default() };
        assert_eq!(
            requests(&ask, &[body]),
            ["PUT /a?b=c HTTP/1.1\r\ncontent-length: 2\r\nContent-Type: a/b\r\nHOST: x\r\n\r\nhi"]
        );
    }

    #[test]
    fn what_would_break_a_request_is_refused() {
        let address = "127.0.0.1:1".parse().unwrap();
        let refused = |ask: &Ask| Target::new(&url("http://h"), address, ask, &[]).unwrap_err();
        for (name, value, says) in [
            ("a b", "c", "name"),
            ("", "c", "name"),
            ("a", "b\r\nc: d", "control"),
            ("Content-Length", "1", "body"),
        ] {
            let ask = Ask { headers: vec![(name.to_owned(), value.to_owned())], ..Ask::default() };
            assert!(refused(&ask).contains(says), "{name:?}: {value:?}");
        }
        let ask = Ask { method: Some("GET /x".to_owned()), ..Ask::default() };
        assert!(refused(&ask).contains("expected one as GET"));
    }

    #[test]
    fn folders_are_read_in_order_and_types_are_guessed() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
        file("d.txt", b"words");
        file("c", b" {\"text\": \"x\"}");
        file("b.jpg", b"\x89PNG\r\n");
        file("a.bin", b"\xff\xd8\xff\xe0");
        file("e.dat", b"RIFF....WEBPVP8 ");
        file("f.dat", b"?");
        file(".hidden", b"no");
        fs::create_dir(dir.path().join("folder")).unwrap();
        let read = bodies(&[dir.path().to_owned()], None).unwrap();
        let types: Vec<&str> = read.iter().map(|body| body.content_type.as_str()).collect();
        let expected = [
            "image/jpeg",
            "image/png",
            "application/json",
            "text/plain",
            "image/webp",
            "application/octet-stream",
        ];
        assert_eq!(types, expected);
        let read = bodies(&[dir.path().join("d.txt")], Some("text/html")).unwrap();
        assert_eq!(read, [Body { bytes: "words".into(), content_type: "text/html".to_owned() }]);

        let error = bodies(&[dir.path().join("folder")], None).unwrap_err();
        assert!(error.starts_with("there is no file in the folder"), "{error}");
        let error = bodies(&[dir.path().join("none")], None).unwrap_err();
        assert!(error.contains("none: No such file"), "{error}");
    }

    #[test]
    fn a_seed_brings_requests_into_the_same_other_order() {
        let body = |n: usize| Body { bytes: n.to_string().into(), content_type: String::new() };
        let bodies: Vec<Body> = (0..20).map(body).collect();
        let address = "127.0.0.1:1".parse().unwrap();
        let target = Target::new(&url("http://h"), address, &Ask::default(), &bodies).unwrap();
        let shuffled = |seed| target.clone().ordered(Order::Shuffled { seed }).requests;
        assert_eq!(shuffled(1), shuffled(1));
        assert_ne!(shuffled(1), shuffled(2));
        assert_eq!(target.clone().ordered(Order::AsGiven).requests, target.requests);
    }
}
