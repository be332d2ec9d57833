//! `lepton health`: one GET with nothing but the standard library, for containers without a shell.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::config::Config;

/// Longest wait for the server to take the connection, and for each part of its answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest status line, in bytes.
const MAX_LINE: u64 = 1024;

/// Asks whether a server is ready.
#[derive(Debug, Args)]
pub(super) struct Health {
    /// Ask this URL, http://ADDRESS:PORT/PATH [default: /readyz where --listen says]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
}

impl Health {
    pub(super) fn run(&self, config: &Config) -> Result<()> {
        let (address, path) = match &self.url {
            Some(url) => parse(url)?,
            None => (reachable(config.server.listen), "/readyz".to_owned()),
        };
        let status = get(address, &path).with_context(|| format!("cannot ask http://{address}{path}"))?;
        if status != 200 {
            bail!("http://{address}{path} answered {status}; expected 200");
        }
        Ok(())
    }
}

/// Splits `http://ADDRESS:PORT/PATH`.
fn parse(url: &str) -> Result<(SocketAddr, String)> {
    let parts = url.strip_prefix("http://").map(|rest| rest.split_at(rest.find('/').unwrap_or(rest.len())));
    let address = parts.and_then(|(address, _)| address.parse().ok());
    let (Some((_, path)), Some(address)) = (parts, address) else {
        bail!("the URL is {url:?}; expected http://ADDRESS:PORT/PATH with a numeric address");
    };
    if path.contains(char::is_whitespace) {
        bail!("the URL is {url:?}; expected no blanks in it");
    }
    Ok((address, if path.is_empty() { "/readyz".to_owned() } else { path.to_owned() }))
}

/// Where to reach a server that listens on every interface: on this machine.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// Sends a GET and reads the status of the answer.
fn get(address: SocketAddr, path: &str) -> Result<u16> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut line = String::new();
    BufReader::new(stream.take(MAX_LINE)).read_line(&mut line)?;
    let status =
        line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)).and_then(|code| code.parse().ok());
    status.with_context(|| format!("the answer begins with {:?}; expected an HTTP status", line.trim_end()))
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    /// What `health` says of a server that answers one request with `answer`.
    fn asked(answer: &'static str) -> Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/readyz", listener.local_addr().unwrap());
        let server = thread::Builder::new()
            .spawn(move || {
                let (stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(stream);
                let mut request = String::new();
                while reader.read_line(&mut request).unwrap() > 2 {}
                reader.get_mut().write_all(answer.as_bytes()).unwrap();
                request
            })
            .unwrap();
        let said = Health { url: Some(url) }.run(&Config::default());
        assert!(server.join().unwrap().starts_with("GET /readyz HTTP/1.1\r\nhost: 127.0.0.1:"));
        said
    }

    #[test]
    fn only_200_is_healthy() {
        asked("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
        let error = asked("HTTP/1.1 503 Service Unavailable\r\n\r\n").unwrap_err();
        assert!(error.to_string().ends_with("/readyz answered 503; expected 200"), "{error}");
        assert!(format!("{:#}", asked("hello\r\n").unwrap_err()).contains("begins with \"hello\""));
        assert!(asked("").is_err());
    }

    #[test]
    fn nobody_listening_is_not_healthy() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(Health { url: Some(format!("http://{address}")) }.run(&Config::default()).is_err());
    }

    #[test]
    fn a_server_on_every_interface_is_asked_on_this_machine() {
        for (listen, ask) in
            [("0.0.0.0:8080", "127.0.0.1:8080"), ("[::]:81", "[::1]:81"), ("10.1.2.3:9", "10.1.2.3:9")]
        {
            assert_eq!(reachable(listen.parse().unwrap()), ask.parse().unwrap());
        }
    }

    #[test]
    fn urls_of_another_form_are_refused_with_what_is_expected() {
        assert_eq!(
            parse("http://[::1]:80/healthz").unwrap(),
            ("[::1]:80".parse().unwrap(), "/healthz".to_owned())
        );
        assert_eq!(parse("http://127.0.0.1:80").unwrap().1, "/readyz");
        for bad in [
            "https://127.0.0.1:80/",
            "127.0.0.1:80",
            "http://localhost:80/",
            "http://127.0.0.1/",
            "http://127.0.0.1:80/a b",
        ] {
            assert!(parse(bad).unwrap_err().to_string().contains("expected"), "{bad}");
        }
    }
}
