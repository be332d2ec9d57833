//! What an idle server holds.

use std::{
    thread,
    time::{Duration, Instant},
};

use lepton_testkit::pictures;

use crate::support::{
    client::{exchange, post},
    process::Lepton,
};

/// A picture of 17 MB, decoded, and how much of it has to go back.
const SIDE: u32 = 2400;
const LEAST_KIB: u64 = 12 << 10;
const LONGEST: Duration = Duration::from_secs(60);

#[test]
fn what_a_request_took_goes_back_while_nobody_asks() {
    let lepton = Lepton::start();
    lepton.settled_peak_kib();
    let picture = pictures::png(&pictures::draw(SIDE, SIDE));
    let response = exchange(lepton.address, &post("/v1/vision/classify", "image/png", &picture));
    assert_eq!(response.status, 200, "{}", String::from_utf8_lossy(&response.body));
    let (began, high) = (Instant::now(), lepton.memory_kib("VmRSS"));
    while lepton.memory_kib("VmRSS") + LEAST_KIB > high {
        assert!(began.elapsed() < LONGEST, "{high} KiB then, {} now", lepton.memory_kib("VmRSS"));
        thread::sleep(Duration::from_millis(50));
    }
}
