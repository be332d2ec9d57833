//! A caller that costs little: kept-alive connections that read no more of an answer than they have to.

use std::{
    net::SocketAddr,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Writes a whole POST request; `terms` are further header lines, each with its end of line.
pub(crate) fn post(path: &str, content_type: &str, terms: &str, body: &[u8]) -> Bytes {
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: {content_type}\r\n{terms}content-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    Bytes::from(request)
}

/// What the head of an answer says.
pub(crate) struct Head {
    pub(crate) status: u16,
    /// Where the body lies, from the first byte of the head.
    pub(crate) body: Range<usize>,
    /// Whether another request may follow on this connection.
    pub(crate) then: Then,
}

/// What becomes of a connection after an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    Keeps,
    Closes,
}

impl Head {
    /// Reads the head of an answer; `None` while some of it is missing.
    pub(crate) fn read(bytes: &[u8]) -> Result<Option<Self>, Failure> {
        let Some(end) = bytes.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return Ok(None) };
        let head = std::str::from_utf8(&bytes[..end])?;
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).ok_or("not HTTP/1.1")?;
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.ok_or("an answer without a length")?.parse()?;
        let closes = head.lines().any(|line| line == "connection: close");
        let then = if closes { Then::Closes } else { Then::Keeps };
        Ok(Some(Self { status: status.parse()?, body: end + 4..end + 4 + length, then }))
    }
}

/// A connection that is opened again where the server has closed it.
pub(crate) struct Caller {
    address: SocketAddr,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

impl Caller {
    pub(crate) async fn connect(address: SocketAddr) -> Result<Self, Failure> {
        Ok(Self { address, stream: Some(open(address).await?), buffer: Vec::with_capacity(4096) })
    }

    /// Sends a request and gives the status of its answer, once all of that is there.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> Result<u16, Failure> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => open(self.address).await?,
        };
        // A refusal may come while a long body is still on its way, and is read all the same.
        let sent = stream.write_all(request).await;
        self.buffer.clear();
        loop {
            if stream.read_buf(&mut self.buffer).await? == 0 {
                sent?;
                return Err("the server closed the connection".into());
            }
            if let Some(head) = Head::read(&self.buffer)?
                && self.buffer.len() >= head.body.end
            {
                if head.then == Then::Keeps {
                    self.stream = Some(stream);
                }
                return Ok(head.status);
            }
        }
    }
}

async fn open(address: SocketAddr) -> Result<TcpStream, Failure> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Answers a second to `callers`, each of which asks again as soon as it is answered: the requests one
/// after the other. Every answer has to have the status `expected`.
pub(crate) fn saturate(
    address: SocketAddr,
    requests: &[Bytes],
    callers: usize,
    expected: u16,
    time: Duration,
) -> Result<f64, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answers = Arc::new(AtomicUsize::new(0));
    runtime.block_on(async {
        let mut asking = tokio::task::JoinSet::new();
        for n in 0..callers {
            let (requests, answers) = (requests.to_vec(), Arc::clone(&answers));
            let mut caller = Caller::connect(address).await?;
            asking.spawn(async move {
                for request in requests.iter().cycle().skip(n % requests.len()) {
                    match caller.ask(request).await {
                        Ok(status) if status == expected => answers.fetch_add(1, Ordering::Relaxed),
                        Ok(status) => return format!("answered {status} instead of {expected}").into(),
                        Err(error) => return error,
                    };
                }
                Failure::from("no request")
            });
        }
        let began = Instant::now();
        match tokio::time::timeout(time, asking.join_next()).await {
            Ok(Some(ended)) => Err(ended?),
            Ok(None) => Err("no caller".into()),
            Err(_) => Ok(answers.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64()),
        }
    })
}
