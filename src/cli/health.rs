//! `lepton health`: one GET, for containers without a shell.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use lepton_load::{Ask, Target, Url, status};

use crate::config::Config;

/// Longest wait for the answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Asks whether a server is ready.
#[derive(Debug, Args)]
pub(super) struct Health {
    /// Ask this URL, http://HOST:PORT/PATH [default: /readyz where --listen says]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
}

impl Health {
    pub(super) fn run(&self, config: &Config) -> Result<()> {
        let url = match &self.url {
            Some(url) => parse(url)?,
            None => parse(&format!("http://{}/readyz", reachable(config.server.listen)))?,
        };
        let status = get(&url).with_context(|| format!("cannot ask {url}"))?;
        if status != 200 {
            bail!("{url} answered {status}; expected 200");
        }
        Ok(())
    }
}

/// Reads a URL; without a path it is of readiness.
fn parse(url: &str) -> Result<Url> {
    let parsed: Url = url.parse().map_err(|error| anyhow!("the URL is {url:?}; {error}"))?;
    let path = if parsed.path() == "/" && !url.ends_with('/') { "/readyz" } else { "" };
    format!("{url}{path}").parse().map_err(|error| anyhow!("the URL is {url:?}; {error}"))
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

/// Sends a GET and returns the status of the answer.
fn get(url: &Url) -> Result<u16> {
    let address = url.resolve().context("cannot find the host")?;
    let ask = Ask { headers: vec![("connection".to_owned(), "close".to_owned())], ..Ask::default() };
    let target = Target::new(url, address, &ask, &[]).map_err(|error| anyhow!(error))?;
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().context("cannot start the client")?;
    runtime.block_on(status(&target, TIMEOUT)).map_err(|fault| anyhow!("{fault}"))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Write},
        net::TcpListener,
        thread,
    };

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
        assert!(format!("{:#}", asked("hello\r\n\r\n").unwrap_err()).contains("no HTTP/1.1"));
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
        assert_eq!(parse("http://[::1]:80/healthz").unwrap().to_string(), "http://[::1]:80/healthz");
        assert_eq!(parse("http://127.0.0.1:80").unwrap().path(), "/readyz");
        assert_eq!(parse("http://localhost:80/").unwrap().path(), "/");
        for bad in ["https://127.0.0.1:80/", "127.0.0.1:80", "http://127.0.0.1:0/", "http://127.0.0.1:80/a b"]
        {
            assert!(parse(bad).unwrap_err().to_string().contains("expected"), "{bad}");
        }
    }
}
