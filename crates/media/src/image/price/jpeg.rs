//! The size and the scans of a JPEG (ITU-T T.81, annex B), by its markers.

use memchr::memchr;

use super::{Coding, MOST_PASSES, Outline, Reader, Source};

/// Scans of a progressive picture as encoders write them, where no more of them can be counted.
const USUAL_SCANS: u32 = 10;

/// Coded data that are looked through at once.
const WINDOW: usize = 256;

/// A frame header: what the picture is coded as, its size, and its components.
struct Frame {
    is_progressive: bool,
    width: u32,
    height: u32,
    components: u32,
}

/// Reads markers up to the frame; where a picture takes several scans, counts them as far as it may.
pub(super) fn outline(reader: &mut Reader<'_, impl Source>) -> Option<Outline> {
    let (mut at, mut frame, mut scans) = (2, None, 0u32);
    while let Some([0xff, code, l0, l1]) = reader.get::<4>(at) {
        match code {
            0xff => {
                // A fill byte.
                at += 1;
                continue;
            }
            0x01 | 0xd0..=0xd8 => {
                at += 2;
                continue;
            }
            0xd9 => break,
            _ => {}
        }
        let length = usize::from(u16::from_be_bytes([l0, l1])).max(2);
        match code {
            0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf if frame.is_none() => {
                let [_, h0, h1, w0, w1, components] = reader.get::<6>(at + 4)?;
                frame = Some(Frame {
                    is_progressive: code == 0xc2,
                    width: u16::from_be_bytes([w0, w1]).into(),
                    height: u16::from_be_bytes([h0, h1]).into(),
                    components: u32::from(components).max(1),
                });
            }
            0xda => {
                scans += 1;
                let frame = frame.as_ref()?;
                let [in_scan] = reader.get::<1>(at + 4)?;
                let is_whole = !frame.is_progressive && u32::from(in_scan) >= frame.components;
                if is_whole || scans >= MOST_PASSES {
                    break;
                }
                match next_marker(reader, at + 2 + length) {
                    Some(marker) => {
                        at = marker;
                        continue;
                    }
                    None => break,
                }
            }
            _ => {}
        }
        at += 2 + length;
    }
    let Frame { is_progressive, width, height, components } = frame?;
    let seen_all = reader.left > 0;
    let scans = match seen_all {
        true => scans,
        // As many in the rest of the file as in what was seen of it.
        false => {
            let whole = reader.source.n_bytes().max(1) as u64;
            let expected = u64::from(scans) * whole / (at as u64).clamp(1, whole);
            u32::try_from(expected).unwrap_or(MOST_PASSES).max(USUAL_SCANS)
        }
    };
    // Scans of one component each go through all pixels once, together.
    let passes = if is_progressive { scans } else { scans.div_ceil(components) };
    let coding = if is_progressive { Coding::ProgressiveJpeg } else { Coding::SequentialJpeg };
    Some(Outline { coding, width, height, passes: passes.clamp(1, MOST_PASSES) })
}

/// The position of the marker that ends coded data: there 0xff is stuffed with 0, and restart markers are data.
fn next_marker(reader: &mut Reader<'_, impl Source>, from: usize) -> Option<usize> {
    let (mut at, mut window) = (from, [0; WINDOW]);
    loop {
        let n = reader.fill(at, &mut window);
        if n < 2 {
            return None;
        }
        let mut seen = 0;
        while let Some(found) = memchr(0xff, &window[seen..n]) {
            let marker = seen + found;
            match window[..n].get(marker + 1) {
                Some(0x00 | 0x01 | 0xd0..=0xd8) => seen = marker + 2,
                Some(0xff) => seen = marker + 1,
                Some(_) => return Some(at + marker),
                // Its code lies in the next window.
                None => break,
            }
        }
        // A marker's first byte may be the last of the window.
        at += n - 1;
    }
}
