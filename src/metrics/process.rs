//! What the operating system says of this process, read at each scrape.

use std::{
    fmt, fs,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};
use rustix::time::{ClockId, clock_gettime};

/// Lines of log that were lost. Of the process, for so is the log.
static LOST_LOG_LINES: AtomicU64 = AtomicU64::new(0);

/// Counts lines of log that could not be written.
pub fn count_lost_log_lines(lines: u64) {
    LOST_LOG_LINES.fetch_add(lines, Ordering::Relaxed);
}

/// The metrics that Prometheus's own client libraries give every process, under the same names.
#[derive(Debug)]
pub(super) struct Process {
    started: Duration,
}

impl Process {
    /// Takes now as the time when the process started.
    pub(super) fn starting_now() -> Self {
        Self { started: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let started = ConstGauge::new(self.started.as_secs_f64());
        let help = "Start of the process, in seconds since 1970";
        started.encode(encoder.encode_descriptor(
            "process_start_time_seconds",
            help,
            None,
            started.metric_type(),
        )?)?;

        let cpu = ConstCounter::new(cpu_time().as_secs_f64());
        let help = "CPU time that the process has used, user and system";
        cpu.encode(encoder.encode_descriptor("process_cpu_seconds", help, None, cpu.metric_type())?)?;

        let lost = ConstCounter::new(LOST_LOG_LINES.load(Ordering::Relaxed));
        let help = "Lines of log that came faster than they could be written, or could not be written";
        lost.encode(encoder.encode_descriptor("lepton_log_lines_lost", help, None, lost.metric_type())?)?;

        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        if let Some(bytes) = resident_bytes(&status) {
            let memory = ConstGauge::new(i64::try_from(bytes).unwrap_or(i64::MAX));
            let help = "Resident memory of the process, in bytes";
            memory.encode(encoder.encode_descriptor(
                "process_resident_memory_bytes",
                help,
                None,
                memory.metric_type(),
            )?)?;
        }
        Ok(())
    }
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Reads `VmRSS:    1234 kB` of `/proc/self/status`.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_in_bytes() {
        assert_eq!(
            resident_bytes("Name:\tx\nVmHWM:\t  9 kB\nVmRSS:\t    1234 kB\nRssAnon:\t 5 kB\n"),
            Some(1_263_616)
        );
        assert_eq!(resident_bytes("Name:\tzombie\n"), None);
        assert_eq!(resident_bytes("VmRSS:\t many kB\n"), None);
    }

    #[test]
    fn cpu_time_only_grows() {
        let before = cpu_time();
        assert!(before > Duration::ZERO);
        assert!(cpu_time() >= before);
    }
}
