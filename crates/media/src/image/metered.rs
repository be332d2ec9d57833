//! A decode within what was foreseen of it.
//!
//! Invariant: nothing is decoded before what it takes is within the limits, and a decoder that takes more than
//! was foreseen gets no further byte: its next read fails, and so it ends by itself.

use std::io::{self, BufRead, Cursor, Read, Seek, SeekFrom};

use lepton_allocator as allocator;

use super::{ImageLimits, survey::afford};
use crate::error::{Amount, MediaError};

/// What a decode may take beyond what was foreseen of it, in bytes: tables of a fixed size, names, errors.
pub(super) const SLACK: u64 = 256 << 10;

/// The bytes that a decoder gets before it is looked at again. The dearest file makes 360 bytes of tables
/// from each.
const WINDOW: usize = 4 << 10;

/// Runs a decode of which `foreseen` bytes of memory are expected, its result included.
///
/// # Errors
/// [`MediaError::TooLarge`] where that is more than `limits` allow, or where the decoder failed because it had taken
/// more than was foreseen.
pub(super) fn within<T>(
    foreseen: u64,
    limits: ImageLimits,
    decode: impl FnOnce() -> Result<T, MediaError>,
) -> Result<T, MediaError> {
    afford(foreseen, limits)?;
    let budget = foreseen + SLACK;
    let (decoded, peak) = allocator::counted(budget, decode);
    match decoded {
        Err(_) if peak > budget => Err(MediaError::TooLarge {
            what: "memory that the image takes, beyond what its header says, in bytes",
            got: Amount::Exactly(peak),
            limit: foreseen,
        }),
        decoded => decoded,
    }
}

/// A file as a decoder reads it.
#[derive(Debug)]
pub(super) struct Metered<'a> {
    file: Cursor<&'a [u8]>,
}

impl<'a> Metered<'a> {
    pub(super) fn new(file: &'a [u8]) -> Self {
        Self { file: Cursor::new(file) }
    }
}

fn may_go_on() -> io::Result<()> {
    if allocator::is_over_budget() { Err(io::Error::other("more memory than foreseen")) } else { Ok(()) }
}

impl Read for Metered<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        may_go_on()?;
        self.file.read(buffer)
    }
}

impl BufRead for Metered<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        may_go_on()?;
        let rest = self.file.fill_buf()?;
        Ok(&rest[..rest.len().min(WINDOW)])
    }

    fn consume(&mut self, n: usize) {
        self.file.consume(n);
    }
}

impl Seek for Metered<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ImageLimits = ImageLimits { pixels: 1, side: 1, memory: 1 << 20 };

    #[test]
    fn a_decoder_that_takes_more_than_foreseen_gets_no_further_byte() {
        let file = [7; 64 << 10];
        let decode = |n_bytes: usize| {
            within(1 << 20, LIMITS, || {
                let mut reader = Metered::new(&file);
                let mut held = Vec::new();
                loop {
                    let got = reader.fill_buf().map_err(|_| MediaError::malformed("a read failed"))?.len();
                    if got == 0 {
                        return Ok(held.len());
                    }
                    assert!(got <= WINDOW);
                    reader.consume(got);
                    held.push(vec![0u8; n_bytes]);
                }
            })
        };
        assert_eq!(decode(64 << 10), Ok(16));
        let Err(MediaError::TooLarge { got: Amount::Exactly(got), limit, .. }) = decode(256 << 10) else {
            panic!("not refused")
        };
        assert_eq!(limit, 1 << 20);
        assert!(got < 2 << 20, "{got} bytes are far beyond");
    }

    #[test]
    fn what_is_too_much_is_refused_before_it_begins() {
        let decoded = within((1 << 20) + 1, LIMITS, || -> Result<(), MediaError> { panic!("it began") });
        assert!(matches!(decoded, Err(MediaError::TooLarge { limit: 1_048_576, .. })));
    }
}
