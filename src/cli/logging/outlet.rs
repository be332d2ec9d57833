//! Lines on their way to a stream that may take them slowly, not at all, or be gone.
//!
//! Invariant: handing over a line never waits for the stream and never fails. A line that finds no room, or
//! that cannot be written, is lost and counted.

use std::{
    fs::File,
    io::{self, ErrorKind, Write},
    os::fd::AsFd,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use crate::metrics;

/// Most bytes of lines that wait to be written: some thousand lines.
const ROOM: usize = 1 << 20;

/// How long lines gather after some have been written: a server that logs tens of thousands of lines a second
/// writes a few hundred times a second.
const GATHER: Duration = Duration::from_millis(2);

/// Between two attempts on a stream that does not block and takes nothing at present.
const RETRY: Duration = Duration::from_millis(10);

/// Lines that wait for one stream, and the thread that writes them.
pub(super) struct Outlet {
    waiting: Mutex<Waiting>,
    filled: Condvar,
    written: Condvar,
    room: usize,
}

struct Waiting {
    /// Whole lines.
    lines: Vec<u8>,
    writer: Writer,
    /// Lines lost that no line has told of yet.
    untold: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writer {
    /// Not started.
    Absent,
    /// Everything is written.
    Asleep,
    Awake,
}

/// How many lines the writer has told were lost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lost(pub(super) u64);

impl Outlet {
    pub(super) const fn new() -> Self {
        Self::with_room(ROOM)
    }

    const fn with_room(room: usize) -> Self {
        let waiting = Waiting { lines: Vec::new(), writer: Writer::Absent, untold: 0 };
        Self { waiting: Mutex::new(waiting), filled: Condvar::new(), written: Condvar::new(), room }
    }

    /// Hands over whole lines, the last with its end.
    pub(super) fn push(&self, lines: &[u8]) {
        let mut waiting = self.lock();
        let fits = waiting.lines.len() + lines.len() <= self.room;
        if !fits || waiting.lines.try_reserve(lines.len()).is_err() {
            let n_lost = count_lines(lines);
            waiting.untold += n_lost;
            metrics::count_lost_log_lines(n_lost);
            return;
        }
        waiting.lines.extend_from_slice(lines);
        if waiting.writer == Writer::Asleep {
            waiting.writer = Writer::Awake;
            drop(waiting);
            self.filled.notify_one();
        }
    }

    /// Waits until every line is written or lost, at most `longest`; without a writer, for nothing.
    pub(super) fn flush(&self, longest: Duration) {
        let is_busy = |waiting: &mut Waiting| match waiting.writer {
            Writer::Absent => false,
            Writer::Asleep => !waiting.lines.is_empty(),
            Writer::Awake => true,
        };
        let waited = self.written.wait_timeout_while(self.lock(), longest, is_busy);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Takes what waits where there is no writer to write it.
    pub(super) fn unattended(&self) -> Vec<u8> {
        let mut waiting = self.lock();
        match waiting.writer {
            Writer::Absent => std::mem::take(&mut waiting.lines),
            Writer::Asleep | Writer::Awake => Vec::new(),
        }
    }

    /// Starts the thread that writes to `stream`. `tell` is called on it when lines were lost and the stream
    /// takes lines again.
    pub(super) fn start(&'static self, stream: impl AsFd, tell: fn(Lost)) -> io::Result<()> {
        // A descriptor of its own: whoever holds the lock of `io::stderr` while it blocks holds up others.
        self.attend(File::from(stream.as_fd().try_clone_to_owned()?), tell)
    }

    fn attend(&'static self, to: impl Write + Send + 'static, tell: fn(Lost)) -> io::Result<()> {
        self.lock().writer = Writer::Awake;
        let writer = thread::Builder::new().name("lepton-log".to_owned());
        let started = writer.spawn(move || self.write_on(Stream { to, is_mid_line: false }, tell));
        if started.is_err() {
            self.lock().writer = Writer::Absent;
        }
        started.map(drop)
    }

    fn write_on(&self, mut stream: Stream<impl Write>, tell: fn(Lost)) {
        let mut taken = Vec::new();
        loop {
            let mut waiting = self.lock();
            while waiting.lines.is_empty() {
                waiting.writer = Writer::Asleep;
                self.written.notify_all();
                waiting = self.filled.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
            waiting.writer = Writer::Awake;
            std::mem::swap(&mut taken, &mut waiting.lines);
            drop(waiting);

            let n_lost = stream.write(&taken);
            taken.clear();
            metrics::count_lost_log_lines(n_lost);
            let mut waiting = self.lock();
            waiting.untold += n_lost;
            // A stream that failed just now would lose this line as well.
            let untold = if n_lost == 0 { std::mem::take(&mut waiting.untold) } else { 0 };
            drop(waiting);
            if untold > 0 {
                tell(Lost(untold));
            }
            thread::sleep(GATHER);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream that takes lines, as long as it does.
struct Stream<W> {
    to: W,
    /// The last line that was written has no end: the stream failed in its middle.
    is_mid_line: bool,
}

impl<W: Write> Stream<W> {
    /// Writes lines; returns how many of them were lost.
    fn write(&mut self, lines: &[u8]) -> u64 {
        if self.is_mid_line && self.write_all(b"\n").is_err() {
            return count_lines(lines);
        }
        match self.write_all(lines) {
            Ok(()) => {
                self.is_mid_line = false;
                0
            }
            Err(n_written) => {
                let (written, rest) = lines.split_at(n_written);
                self.is_mid_line = written.last().map_or(self.is_mid_line, |last| *last != b'\n');
                count_lines(rest)
            }
        }
    }

    /// Writes everything, or tells how many bytes were written before the stream failed.
    fn write_all(&mut self, bytes: &[u8]) -> Result<(), usize> {
        let mut n_written = 0;
        while n_written < bytes.len() {
            match self.to.write(&bytes[n_written..]) {
                Ok(0) => return Err(n_written),
                Ok(n) => n_written += n,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Others share the stream and have made it one that does not block.
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(RETRY),
                Err(_) => return Err(n_written),
            }
        }
        Ok(())
    }
}

fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().map(|c| u64::from(*c == b'\n')).sum()
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, PipeReader, PipeWriter, Read},
        sync::mpsc,
    };

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// An outlet whose thread writes to `to`.
    fn outlet(room: usize, to: impl Write + Send + 'static, tell: fn(Lost)) -> &'static Outlet {
        let outlet: &'static Outlet = Box::leak(Box::new(Outlet::with_room(room)));
        outlet.attend(to, tell).unwrap();
        outlet
    }

    fn pipe() -> (BufReader<PipeReader>, PipeWriter) {
        let (reader, writer) = io::pipe().unwrap();
        (BufReader::new(reader), writer)
    }

    #[test]
    fn lines_come_out_whole_and_in_order() {
        let (reader, writer) = pipe();
        let outlet = outlet(ROOM, writer, |_| {});
        for n in 0..1000 {
            outlet.push(format!("line {n}\n").as_bytes());
        }
        let lines: Vec<String> = reader.lines().take(1000).map(Result::unwrap).collect();
        assert!((0..1000).all(|n| lines[n] == format!("line {n}")));
        outlet.flush(LONG);
        assert!(outlet.lock().lines.is_empty());
    }

    #[test]
    fn a_stalled_reader_holds_nobody_up_and_costs_lines_that_are_counted_and_told() {
        static TOLD: Mutex<Option<mpsc::Sender<u64>>> = Mutex::new(None);
        let (sender, told) = mpsc::channel();
        *TOLD.lock().unwrap() = Some(sender);
        let (mut reader, writer) = pipe();
        let outlet = outlet(1000, writer, |Lost(n)| {
            TOLD.lock().unwrap().as_ref().unwrap().send(n).unwrap();
        });
        // Nobody reads: what neither the pipe nor the room holds is lost, and the pushing ends all the same.
        let line = [&[b'x'; 99][..], b"\n"].concat();
        let n_lines = 100_000u64;
        (0..n_lines).for_each(|_| outlet.push(&line));
        outlet.flush(Duration::from_millis(1));
        let read = thread::Builder::new().spawn(move || {
            let (mut n_read, mut line) = (0, String::new());
            while reader.read_line(&mut line).unwrap() > 0 && line != "end\n" {
                assert_eq!(line.len(), 100);
                line.clear();
                n_read += 1;
            }
            n_read
        });
        // With a reader there is room for the next line, if not at once.
        let mut n_lost = told.recv().unwrap();
        outlet.flush(LONG);
        n_lost += told.try_iter().sum::<u64>();
        outlet.push(b"end\n");
        assert_eq!(read.unwrap().join().unwrap() + n_lost, n_lines);
    }

    #[test]
    fn a_reader_that_has_gone_ends_nothing() {
        let (reader, writer) = pipe();
        let outlet = outlet(ROOM, writer, |_| panic!("nobody to tell"));
        drop(reader);
        for _ in 0..3 {
            outlet.push(b"one\ntwo\n");
            outlet.flush(LONG);
        }
        assert_eq!(outlet.lock().untold, 6);
    }

    /// A disk of a given number of bytes, which is then emptied.
    struct Disk {
        free: usize,
        written: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.free == 0 {
                self.free = 1000;
                return Err(ErrorKind::StorageFull.into());
            }
            let n = bytes.len().min(self.free);
            self.free -= n;
            self.written.send(bytes[..n].to_vec()).unwrap();
            Ok(n)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_was_cut_by_a_full_disk_does_not_swallow_the_next() {
        let (written, disk) = mpsc::channel();
        let outlet = outlet(ROOM, Disk { free: 6, written }, |_| {});
        for line in ["first\n", "second\n", "third\n"] {
            outlet.push(line.as_bytes());
            outlet.flush(LONG);
        }
        let text: Vec<u8> = disk.try_iter().flatten().collect();
        assert_eq!(text, b"first\nthird\n");
        let (written, disk) = mpsc::channel();
        let outlet = self::outlet(ROOM, Disk { free: 9, written }, |_| {});
        for line in ["first\n", "second\n", "third\n"] {
            outlet.push(line.as_bytes());
            outlet.flush(LONG);
        }
        let text: Vec<u8> = disk.try_iter().flatten().collect();
        assert_eq!(text, b"first\nsec\nthird\n");
    }

    #[test]
    fn a_flush_ends_however_long_the_stream_stalls() {
        let (mut reader, writer) = pipe();
        let outlet = outlet(ROOM, writer, |_| {});
        outlet.push(&[b'\n'; ROOM]);
        outlet.flush(Duration::from_millis(1));
        let mut byte = [0];
        reader.read_exact(&mut byte).unwrap();
    }
}
