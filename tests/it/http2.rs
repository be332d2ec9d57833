//! HTTP/2 as other programs speak it: the whole server, asked by curl.

use std::process::Command;

use crate::support::process::Lepton;

/// What curl prints with these options; `None` where there is no curl that speaks HTTP/2.
fn curl(options: &[&str]) -> Option<String> {
    let version = Command::new("curl").arg("--version").output().ok()?;
    if !String::from_utf8_lossy(&version.stdout).contains("HTTP2") {
        return None;
    }
    let common = ["--silent", "--show-error", "--max-time", "30", "--http2-prior-knowledge"];
    let output = Command::new("curl").args(common).args(options).output().expect("curl runs");
    assert!(output.status.success(), "{options:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn curl_is_answered_over_http2() {
    let server = Lepton::start();
    let url = |path: &str| format!("http://{}{path}", server.address);
    let Some(health) = curl(&["-i", &url("/healthz")]) else {
        eprintln!("skipped: there is no curl that speaks HTTP/2");
        return;
    };
    assert!(health.starts_with("HTTP/2 200") && health.contains("x-request-id:"), "{health}");
    let text =
        ["-H", "content-type: text/plain", "-d", "I love it", &url("/v1/text/sentiment")].map(str::to_owned);
    let answer = curl(&text.each_ref().map(String::as_str)).expect("curl");
    assert!(answer.contains("\"label\":\"positive\""), "{answer}");
}
