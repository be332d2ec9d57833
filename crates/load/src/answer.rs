//! Where an HTTP/1.1 answer ends: its head, then a body by length, in chunks, or to the end of the
//! connection (RFC 9112, section 6.3). The body itself is counted and thrown away.
//!
//! Invariant: the same answer is read in the same way however the network cuts it.

/// Most bytes of a head.
pub(super) const LONGEST_HEAD: usize = 64 << 10;
/// Most headers of an answer.
const MOST_HEADERS: usize = 96;
/// Most bytes of a line between chunks.
const LONGEST_LINE: usize = 4096;

/// What the head of an answer said that a measurement needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) status: u16,
    /// Seconds that `Retry-After` asks for. A date is not read.
    pub(super) retry_after: Option<u64>,
    pub(super) connection: Keep,
}

/// What becomes of the connection after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    Open,
    Closed,
}

/// Whether the answer to a request of this method has a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Head,
    Other,
}

/// An answer as it comes in.
#[derive(Debug)]
pub(super) struct Reading {
    method: Method,
    state: State,
    head: Option<Head>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    /// So many bytes of the body are missing.
    Exactly(u64),
    /// In the line with a chunk's size; so many bytes of it were read.
    Size {
        size: u64,
        digits: Digits,
        read: usize,
    },
    /// So many bytes of a chunk and its line end are missing.
    Chunk(u64),
    /// In the lines after the last chunk; so many bytes of this one were read.
    Trailer(usize),
    ToTheEnd,
    Done,
}

/// Whether the digits of a chunk's size are over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Digits {
    None,
    Some,
    Over,
}

/// What is wrong with an answer.
pub(super) type Malformed = &'static str;

impl Reading {
    pub(super) fn new(method: Method) -> Self {
        Self { method, state: State::Head, head: None }
    }

    /// Takes in what it can of `bytes`, says how many that were. The rest has to be shown again with
    /// more behind it.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let mut taken = 0;
        loop {
            let rest = bytes.get(taken..).unwrap_or_default();
            if self.state == State::Done || rest.is_empty() {
                return Ok(taken);
            }
            let step = match self.state {
                State::Head => match self.read_head(rest)? {
                    Some(length) => length,
                    None => return Ok(taken),
                },
                State::Exactly(missing) => {
                    let step = at_most(missing, rest);
                    let missing = missing - step as u64;
                    self.state = if missing == 0 { State::Done } else { State::Exactly(missing) };
                    step
                }
                State::Chunk(missing) => {
                    let step = at_most(missing, rest);
                    let missing = missing - step as u64;
                    let size = State::Size { size: 0, digits: Digits::None, read: 0 };
                    self.state = if missing == 0 { size } else { State::Chunk(missing) };
                    step
                }
                State::Size { size, digits, read } => {
                    self.state = size_line(rest[0], size, digits, read)?;
                    1
                }
                State::Trailer(read) => {
                    self.state = match rest[0] {
                        b'\n' if read == 0 => State::Done,
                        b'\n' => State::Trailer(0),
                        b'\r' => State::Trailer(read),
                        _ if read == LONGEST_LINE => return Err("a trailer is longer than 4 KiB"),
                        _ => State::Trailer(read + 1),
                    };
                    1
                }
                State::ToTheEnd | State::Done => rest.len(),
            };
            taken += step;
        }
    }

    /// The head of the answer, once all of it is in.
    pub(super) fn finished(&self) -> Option<Head> {
        self.head.filter(|_| self.state == State::Done)
    }

    /// The head of an answer that the end of the connection completes.
    pub(super) fn ended(&self) -> Option<Head> {
        self.head.filter(|_| matches!(self.state, State::Done | State::ToTheEnd))
    }

    /// Reads a head and says how long it is; `None` where a part of it is missing.
    fn read_head(&mut self, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut answer = httparse::Response::new(&mut headers);
        let length = match answer.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if bytes.len() >= LONGEST_HEAD => {
                return Err("the head is longer than 64 KiB");
            }
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => return Err("there are more than 96 headers"),
            Err(_) => return Err("the head is not one of HTTP/1.1"),
        };
        let status = answer.code.unwrap_or_default();
        if status == 101 || status < 100 {
            return Err("the status is not one that answers a request");
        }
        if status < 200 {
            // An interim answer; the real one follows.
            return Ok(Some(length));
        }
        let said = Said::in_headers(answer.headers, answer.version)?;
        self.head = Some(Head { status, retry_after: said.retry_after, connection: said.connection });
        let no_body = self.method == Method::Head || matches!(status, 204 | 304);
        self.state = match said.body {
            _ if no_body => State::Done,
            Extent::Length(0) => State::Done,
            Extent::Length(length) => State::Exactly(length),
            Extent::Chunks => State::Size { size: 0, digits: Digits::None, read: 0 },
            Extent::ToTheEnd => State::ToTheEnd,
        };
        Ok(Some(length))
    }
}

/// How long a body is.
enum Extent {
    Length(u64),
    Chunks,
    ToTheEnd,
}

struct Said {
    body: Extent,
    connection: Keep,
    retry_after: Option<u64>,
}

impl Said {
    fn in_headers(headers: &[httparse::Header<'_>], version: Option<u8>) -> Result<Self, Malformed> {
        let mut said = Self { body: Extent::ToTheEnd, connection: Keep::Open, retry_after: None };
        if version == Some(0) {
            said.connection = Keep::Closed;
        }
        for header in headers {
            let name = header.name;
            if name.eq_ignore_ascii_case("content-length") {
                let length = number(header.value).ok_or("content-length is not a number")?;
                // Chunks win over a length, wherever either stands.
                if !matches!(said.body, Extent::Chunks) {
                    said.body = Extent::Length(length);
                }
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                if !header.value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                    return Err("transfer-encoding is not `chunked`");
                }
                said.body = Extent::Chunks;
            } else if name.eq_ignore_ascii_case("connection") {
                if header.value.trim_ascii().eq_ignore_ascii_case(b"close") {
                    said.connection = Keep::Closed;
                } else if header.value.trim_ascii().eq_ignore_ascii_case(b"keep-alive") {
                    said.connection = Keep::Open;
                }
            } else if name.eq_ignore_ascii_case("retry-after") {
                said.retry_after = number(header.value);
            }
        }
        Ok(said)
    }
}

fn number(value: &[u8]) -> Option<u64> {
    let text = str::from_utf8(value.trim_ascii()).ok()?;
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn at_most(missing: u64, bytes: &[u8]) -> usize {
    usize::try_from(missing).unwrap_or(usize::MAX).min(bytes.len())
}

/// The state after one more byte of the line with a chunk's size.
fn size_line(byte: u8, size: u64, digits: Digits, read: usize) -> Result<State, Malformed> {
    let read = read + 1;
    if read > LONGEST_LINE {
        return Err("the line of a chunk's size is longer than 4 KiB");
    }
    match (byte, digits) {
        (b'\n', Digits::None) => Err("a chunk has no size"),
        (b'\n', _) if size == 0 => Ok(State::Trailer(0)),
        // The two bytes that end the chunk's line are counted with it.
        (b'\n', _) => size.checked_add(2).map(State::Chunk).ok_or("a chunk's size is too large"),
        (b';' | b'\r' | b' ' | b'\t', Digits::Some | Digits::Over) => {
            Ok(State::Size { size, digits: Digits::Over, read })
        }
        (_, Digits::Over) => Ok(State::Size { size, digits, read }),
        (byte, _) => {
            let digit = char::from(byte).to_digit(16).ok_or("a chunk's size is not hexadecimal")?;
            let size = size.checked_mul(16).and_then(|size| size.checked_add(digit.into()));
            Ok(State::Size { size: size.ok_or("a chunk's size is too large")?, digits: Digits::Some, read })
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads `bytes` in parts of these lengths, as a connection does that keeps what was not taken.
    fn read_in(bytes: &[u8], method: Method, parts: &[usize]) -> (Result<Option<Head>, Malformed>, usize) {
        let (mut reading, mut kept, mut taken) = (Reading::new(method), Vec::new(), 0);
        let (mut rest, mut parts) = (bytes, parts.iter().cycle());
        while !rest.is_empty() {
            let (part, after) = rest.split_at((*parts.next().unwrap()).clamp(1, rest.len()));
            rest = after;
            kept.extend_from_slice(part);
            match reading.take(&kept) {
                Ok(n) => {
                    taken += n;
                    kept.drain(..n);
                }
                Err(error) => return (Err(error), taken),
            }
        }
        (Ok(reading.finished()), taken)
    }

    fn whole(bytes: &[u8]) -> Result<Option<Head>, Malformed> {
        read_in(bytes, Method::Other, &[bytes.len()]).0
    }

    const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
        5;note=\"x\"\r\nhello\r\n00A\r\n0123456789\r\n0\r\nx-sum: 1\r\n\r\n";
    const SIZED: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Busy\r\ncontent-length: 5\r\n\
        retry-after: 3\r\nconnection: Close\r\n\r\nhello";

    proptest! {
        #[test]
        fn an_answer_is_the_same_however_it_is_cut(parts in proptest::collection::vec(1usize..40, 1..8)) {
            for answer in [CHUNKED, SIZED] {
                let followed = [answer, b"HTTP/1.1"].concat();
                let (head, taken) = read_in(&followed, Method::Other, &parts);
                prop_assert_eq!(taken, answer.len());
                prop_assert_eq!(head, whole(answer));
                prop_assert!(head.unwrap().is_some());
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 1usize..50) {
            let chunks = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            let _any = read_in(&bytes, Method::Other, &[cut]);
            let _any = read_in(&[chunks, bytes.as_slice()].concat(), Method::Other, &[cut]);
        }
    }

    #[test]
    fn what_the_head_says_is_kept() {
        let head = whole(SIZED).unwrap().unwrap();
        assert_eq!(head, Head { status: 503, retry_after: Some(3), connection: Keep::Closed });
        let head = whole(CHUNKED).unwrap().unwrap();
        assert_eq!(head, Head { status: 200, retry_after: None, connection: Keep::Open });
    }

    #[test]
    fn what_has_no_body_ends_with_its_head() {
        for (answer, method) in [
            (&b"HTTP/1.1 204 None\r\n\r\n"[..], Method::Other),
            (b"HTTP/1.1 304 Same\r\ncontent-length: 9\r\n\r\n", Method::Other),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", Method::Head),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Method::Other),
        ] {
            assert!(matches!(read_in(answer, method, &[1000]).0, Ok(Some(_))), "{answer:?}");
        }
    }

    #[test]
    fn without_a_length_the_end_of_the_connection_is_the_end() {
        let mut reading = Reading::new(Method::Other);
        reading.take(b"HTTP/1.0 200 OK\r\n\r\nsome").unwrap();
        assert_eq!(reading.finished(), None);
        assert_eq!(reading.ended().map(|head| head.connection), Some(Keep::Closed));
        let mut cut = Reading::new(Method::Other);
        cut.take(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nsome").unwrap();
        assert_eq!(cut.ended(), None);
    }

    #[test]
    fn garbage_is_named() {
        let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        for (answer, says) in [
            ("SSH-2.0-OpenSSH_9.2\r\n".to_owned(), "not one of HTTP"),
            ("HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n".to_owned(), "content-length"),
            ("HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\n".to_owned(), "content-length"),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n".to_owned(), "chunked"),
            ("HTTP/1.1 101 Switch\r\n\r\n".to_owned(), "status"),
            (format!("{chunked}zz\r\n"), "hexadecimal"),
            (format!("{chunked}\r\n"), "hexadecimal"),
            (format!("{chunked}ffffffffffffffffff\r\n"), "too large"),
            (format!("{chunked}ffffffffffffffff\r\n"), "too large"),
            (format!("HTTP/1.1 200 OK\r\nx: {}", "a".repeat(LONGEST_HEAD)), "64 KiB"),
        ] {
            let error = whole(answer.as_bytes()).unwrap_err();
            assert!(error.contains(says), "{answer:?}: {error}");
        }
    }
}
