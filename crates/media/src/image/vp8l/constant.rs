//! Rows of a lossless WebP picture whose pixels are all coded the same: 58 bytes may stand for 25 megapixels.
//!
//! Invariant: to the bit what the decoder makes of the same file; only without its buffers, and without passing
//! over each pixel once for each transform.

use super::{Pixel, Size};

/// A picture of which every pixel is coded as `residual`, before `steps` in the order of the file are undone.
#[derive(Debug)]
pub(in super::super) struct Constant {
    pub(super) steps: Vec<Step>,
    pub(super) residual: Pixel,
    pub(super) size: Size,
}

/// A transform that is the same for all pixels.
#[derive(Debug)]
pub(super) enum Step {
    /// Adds what is predicted from pixels that are there already, by one of the modes (RFC 9649, 4.1).
    Predict(u8),
    /// Adds to red and blue shares of green and red (4.2).
    Colour { red_to_blue: u8, green_to_blue: u8, green_to_red: u8 },
    /// Adds green to red and blue (4.3).
    AddGreen,
    /// Looks the green sample up in a table of colours; beyond its end all samples are 0 (4.4).
    Look(Vec<Pixel>),
}

impl Step {
    /// A prediction by `mode`, if it is one of the format's.
    pub(super) fn predict(mode: u8) -> Option<Self> {
        (mode <= 13).then_some(Self::Predict(mode))
    }

    /// Undoes a transform that looks at one pixel alone.
    fn undo(&self, pixel: Pixel) -> Pixel {
        let [red, green, blue, alpha] = pixel;
        let share = |of: u8, sample: u8| ((i32::from(of as i8) * i32::from(sample as i8)) >> 5) as u8;
        match self {
            Self::Predict(_) => pixel,
            Self::Colour { red_to_blue, green_to_blue, green_to_red } => {
                let red = red.wrapping_add(share(*green_to_red, green));
                let blue = blue.wrapping_add(share(*green_to_blue, green));
                [red, green, blue.wrapping_add(share(*red_to_blue, red)), alpha]
            }
            Self::AddGreen => [red.wrapping_add(green), green, blue.wrapping_add(green), alpha],
            Self::Look(table) => table.get(usize::from(green)).copied().unwrap_or_default(),
        }
    }
}

impl Constant {
    /// Pixels of the picture.
    pub(in super::super) fn n_pixels(&self) -> usize {
        self.size.pixels() as usize
    }

    /// Gives the rows from the top, red, green, blue and alpha, each with how many times it stands there.
    pub(in super::super) fn rows(&self, mut give: impl FnMut(&[Pixel], usize)) {
        let (width, height) = (self.size.width as usize, self.size.height as usize);
        // The decoder undoes the last transform first.
        let at = self.steps.iter().rposition(|step| matches!(step, Step::Predict(_)));
        let (before, after) = self.steps.split_at(at.unwrap_or(0));
        let undo = |steps: &[Step], pixel| steps.iter().rev().fold(pixel, |pixel, step| step.undo(pixel));
        let residual = undo(after, self.residual);
        let Some(Step::Predict(mode)) = after.first() else { return give(&vec![residual; width], height) };
        // The first row is predicted from the left, after a black pixel. The pixel above to the right of the
        // last one in a row is the first one of that same row.
        let first = |left: &mut Pixel, _| {
            *left = add(*left, residual);
            Some(*left)
        };
        let mut above: Vec<Pixel> = (0..width).scan([0, 0, 0, 255], first).collect();
        above.push(residual);
        let mut row = above.clone();
        let mut finished = above.clone();
        for y in 0..height {
            for (finished, pixel) in finished.iter_mut().zip(&above) {
                *finished = undo(before, *pixel);
            }
            row[0] = add(above[0], residual);
            above[width] = row[0];
            predict(*mode, residual, &above, &mut row[..width]);
            if row[..width] == above[..width] {
                return give(&finished[..width], height - y);
            }
            give(&finished[..width], 1);
            std::mem::swap(&mut above, &mut row);
        }
    }
}

fn add(a: Pixel, b: Pixel) -> Pixel {
    std::array::from_fn(|at| a[at].wrapping_add(b[at]))
}

fn average(a: u8, b: u8) -> u8 {
    (a & b) + ((a ^ b) >> 1)
}

/// What lies around a pixel, of one sample: left, above, above to the right, above to the left.
type Near = [u8; 4];

/// Fills a row but for its first pixel.
fn predict(mode: u8, residual: Pixel, above: &[Pixel], row: &mut [Pixel]) {
    match mode {
        0 => row[1..].fill(add([0, 0, 0, 255], residual)),
        1 => each(residual, above, row, |[left, _, _, _]| left),
        2 => each(residual, above, row, |[_, top, _, _]| top),
        3 => each(residual, above, row, |[_, _, right, _]| right),
        4 => each(residual, above, row, |[_, _, _, corner]| corner),
        5 => each(residual, above, row, |[left, top, right, _]| average(average(left, right), top)),
        6 => each(residual, above, row, |[left, _, _, corner]| average(left, corner)),
        7 => each(residual, above, row, |[left, top, _, _]| average(left, top)),
        8 => each(residual, above, row, |[_, top, _, corner]| average(corner, top)),
        9 => each(residual, above, row, |[_, top, right, _]| average(top, right)),
        10 => each(residual, above, row, |[left, top, right, corner]| {
            average(average(left, corner), average(top, right))
        }),
        11 => select(residual, above, row),
        12 => each(residual, above, row, |[left, top, _, corner]| {
            (i16::from(left) + i16::from(top) - i16::from(corner)).clamp(0, 255) as u8
        }),
        _ => each(residual, above, row, |[left, top, _, corner]| {
            let mean = i16::from(average(left, top));
            (mean + (mean - i16::from(corner)) / 2).clamp(0, 255) as u8
        }),
    }
}

/// Predicts each sample by what lies around it.
fn each(residual: Pixel, above: &[Pixel], row: &mut [Pixel], by: impl Fn(Near) -> u8) {
    let mut left = row[0];
    for (pixel, above) in row[1..].iter_mut().zip(above.windows(3)) {
        left = std::array::from_fn(|at| {
            by([left[at], above[1][at], above[2][at], above[0][at]]).wrapping_add(residual[at])
        });
        *pixel = left;
    }
}

/// Predicts each pixel by the left one or the one above, whichever is nearer to their sum less the corner.
fn select(residual: Pixel, above: &[Pixel], row: &mut [Pixel]) {
    let mut left = row[0];
    for (pixel, above) in row[1..].iter_mut().zip(above.windows(2)) {
        let ([corner, top], mut to_left, mut to_top) = ([above[0], above[1]], 0, 0);
        for at in 0..4 {
            to_left += top[at].abs_diff(corner[at]) as i32;
            to_top += left[at].abs_diff(corner[at]) as i32;
        }
        left = add(if to_left < to_top { left } else { top }, residual);
        *pixel = left;
    }
}
