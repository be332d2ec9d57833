//! Lines of log without colours: as `tracing_subscriber` writes them, at a quarter of the cost. A server
//! that refuses tens of thousands of requests a second writes as many lines.
//!
//! Invariant: an event is one line, whatever callers send.

use std::{
    cell::Cell,
    fmt::{self, Debug, Write},
    time::{SystemTime, UNIX_EPOCH},
};

use time::OffsetDateTime;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    field::RecordFields,
    fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields, format::Writer, time::FormatTime},
    registry::LookupSpan,
};

/// Writes events, and their spans' fields, without colours.
pub(super) struct Plain;

impl<S, N> FormatEvent<S, N> for Plain
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        Clock.format_time(&mut writer)?;
        writer.write_str(match *event.metadata().level() {
            Level::ERROR => " ERROR ",
            Level::WARN => "  WARN ",
            Level::INFO => "  INFO ",
            Level::DEBUG => " DEBUG ",
            Level::TRACE => " TRACE ",
        })?;
        if let Some(scope) = context.event_scope() {
            for span in scope.from_root() {
                writer.write_str(span.metadata().name())?;
                if let Some(fields) = span.extensions().get::<FormattedFields<N>>()
                    && !fields.is_empty()
                {
                    writer.write_char('{')?;
                    writer.write_str(fields)?;
                    writer.write_char('}')?;
                }
                writer.write_char(':')?;
            }
            writer.write_char(' ')?;
        }
        writer.write_str(event.metadata().target())?;
        writer.write_str(": ")?;
        context.format_fields(writer.by_ref(), event)?;
        writer.write_char('\n')
    }
}

impl<'w> FormatFields<'w> for Plain {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut visitor = Fields { writer, separator: "", written: Ok(()) };
        fields.record(&mut visitor);
        visitor.written
    }
}

struct Fields<'w> {
    writer: Writer<'w>,
    separator: &'static str,
    written: fmt::Result,
}

impl Fields<'_> {
    /// Writes what comes before a value.
    fn begin(&mut self, field: &Field) -> fmt::Result {
        self.written?;
        self.writer.write_str(std::mem::replace(&mut self.separator, " "))?;
        if field.name() != MESSAGE {
            self.writer.write_str(field.name())?;
            self.writer.write_char('=')?;
        }
        Ok(())
    }
}

/// The field that holds an event's own words.
const MESSAGE: &str = "message";

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == MESSAGE {
            return self.record_debug(field, &format_args!("{value}"));
        }
        let plain = |c: u8| matches!(c, b' '..=b'~') & (c != b'"') & (c != b'\\');
        // Without a way out of the loop it takes many bytes at once.
        let is_plain = value.bytes().fold(true, |is_plain, c| is_plain & plain(c));
        if !is_plain {
            return self.record_debug(field, &value);
        }
        self.written = self.begin(field).and_then(|()| {
            self.writer.write_char('"')?;
            self.writer.write_str(value)?;
            self.writer.write_char('"')
        });
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.written = self.begin(field).and_then(|()| write!(Escaped(&mut self.writer), "{value:?}"));
    }
}

/// Passes text on, control characters escaped.
struct Escaped<'a, 'w>(&'a mut Writer<'w>);

impl Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.bytes().fold(true, |is_plain, c| is_plain & matches!(c, b' '..=b'~')) {
            return self.0.write_str(text);
        }
        text.chars().try_for_each(|c| match c.is_control() {
            true => write!(self.0, "{}", c.escape_default()),
            false => self.0.write_char(c),
        })
    }
}

/// Writes the time in UTC, to the microsecond: `2026-11-28T01:02:03.000004Z`.
struct Clock;

thread_local! {
    /// A second since 1970, and its text up to the point.
    static SECOND: Cell<(u64, [u8; 20])> = const { Cell::new((u64::MAX, [0; 20])) };
}

impl FormatTime for Clock {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (mut second, mut text) = SECOND.get();
        if second != now.as_secs() {
            (second, text) = (now.as_secs(), date(now.as_secs()));
            SECOND.set((second, text));
        }
        let mut micros = *b"000000Z";
        write_digits(&mut micros[..6], now.subsec_micros().into());
        for part in [&text[..], &micros[..]] {
            writer.write_str(str::from_utf8(part).unwrap_or_default())?;
        }
        Ok(())
    }
}

/// A second since 1970 as date and time, with the point that the fractions follow.
fn date(seconds: u64) -> [u8; 20] {
    let seconds = i64::try_from(seconds).unwrap_or_default();
    let at = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
    let (hour, minute, second) = at.to_hms();
    let mut text = *b"0000-00-00T00:00:00.";
    write_digits(&mut text[..4], u64::try_from(year).unwrap_or_default());
    for (place, number) in [(5, month), (8, day), (11, hour), (14, minute), (17, second)] {
        write_digits(&mut text[place..place + 2], number.into());
    }
    text
}

/// Fills `digits` with the lowest decimal digits of a number.
fn write_digits(digits: &mut [u8], mut number: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use proptest::prelude::*;
    use tracing::{error_span, field, info, subscriber::with_default, warn};
    use tracing_subscriber::fmt::time::SystemTime as Reference;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Written {
        /// The lines without their times.
        fn text(&self) -> String {
            let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
            text.lines().map(|line| format!("{}\n", line.split_once(' ').unwrap().1)).collect()
        }
    }

    fn events() {
        let span = error_span!("request", id = %"a-1", trace = field::Empty);
        let _entered = span.enter();
        info!(method = %"POST", route = "/v1/\"x\"", status = 200, ms = 1.5, n = -3, is = true, "answered");
        span.record("trace", "4bf9");
        warn!(cause = "two\nlines", other = ?Some("é"), "refused {}", "\u{1b}[31m");
        drop(_entered);
        warn!(error = %"no words");
        error_span!("empty").in_scope(|| info!("within"));
    }

    #[test]
    fn lines_read_as_those_of_the_library() {
        let (ours, theirs) = (Written::default(), Written::default());
        let lines = |to: &Written| {
            let to = to.clone();
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || to.clone())
        };
        with_default(lines(&ours).fmt_fields(Plain).event_format(Plain).finish(), events);
        with_default(lines(&theirs).finish(), events);
        assert_eq!(ours.text(), theirs.text().replace("\\x1b", "\\u{1b}"));
    }

    #[test]
    fn an_event_is_one_line() {
        let written = Written::default();
        let to = written.clone();
        let lines = tracing_subscriber::fmt().fmt_fields(Plain).event_format(Plain);
        with_default(lines.with_writer(move || to.clone()).finish(), || info!(error = %"a\nb", "c\nd"));
        assert_eq!(written.text().lines().count(), 1);
    }

    #[test]
    fn the_time_is_the_librarys_to_the_second() {
        let text = |clock: &dyn FormatTime| {
            let mut text = String::new();
            clock.format_time(&mut Writer::new(&mut text)).unwrap();
            text
        };
        // The second may end between the two.
        let agree = || text(&Clock)[..20] == text(&Reference)[..20];
        assert!(agree() || agree());
        assert_eq!(text(&Clock).len(), text(&Reference).len());
    }

    proptest! {
        #[test]
        fn days_are_counted_as_the_calendar_does(days in 0u64..60_000) {
            let text = |days: u64| String::from_utf8(date(days * 86_400).to_vec()).unwrap();
            let number = |text: &str, at: std::ops::Range<usize>| text[at].parse::<u32>().unwrap();
            let (one, next) = (text(days), text(days + 1));
            let (year, month, day) = (number(&one, 0..4), number(&one, 5..7), number(&one, 8..10));
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
            let expected = match (month, day) {
                (12, 31) => (year + 1, 1, 1),
                (month, day) if day == length[month as usize - 1] => (year, month + 1, 1),
                (month, day) => (year, month, day + 1),
            };
            prop_assert_eq!((number(&next, 0..4), number(&next, 5..7), number(&next, 8..10)), expected);
        }
    }

    #[test]
    fn the_first_second_is_the_epoch() {
        assert_eq!(&date(0), b"1970-01-01T00:00:00.");
        assert_eq!(&date(951_782_399), b"2000-02-28T23:59:59.");
    }
}
