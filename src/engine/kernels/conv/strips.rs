//! Pixels cut into strips: so many neighbours that they make a tile.
//!
//! Invariant: all strips of a cut have the same length, and every pixel is in one of them; the last of
//! a line may overlap the one before it.

/// Most pixels of a strip.
const LONGEST: usize = 16;

/// What a product costs beside its pixels, in pixels: the rows of the weights that are loaded for it.
const OVERHEAD: usize = 8;

/// The answer's pixels as positions in the input, which may lie beyond the ends of its rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Picture {
    pub(super) height: usize,
    pub(super) width: usize,
    /// From one position to the next, and from one row to the next, in numbers of the input.
    pub(super) step: usize,
    pub(super) row: usize,
}

/// A cut of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Strips {
    /// Pixels of each.
    pub(super) len: usize,
    /// Positions from the beginning of one row to that of the next, where strips go on from one row into
    /// the next: those behind the width are no pixels of the answer.
    pub(super) pitch: Option<usize>,
    n_lines: usize,
    /// Positions of a line, and strips.
    line: usize,
    per_line: usize,
}

/// Where a strip begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Strip {
    pub(super) y: usize,
    pub(super) x: usize,
}

impl Strips {
    /// The cut that takes least: of each row by itself, or of all rows as one line where their pixels
    /// stand in line.
    pub(super) fn of(picture: Picture) -> Self {
        let Picture { height, width, step, row } = picture;
        let by_row = Self::cut(height, width, width.div_ceil(LONGEST), None);
        if !row.is_multiple_of(step) {
            return by_row;
        }
        let pitch = row / step;
        let line = (height - 1) * pitch + width;
        // Two strips make a block.
        let per_line = line.div_ceil(LONGEST).next_multiple_of(2);
        let as_one = Self::cut(1, line, per_line, Some(pitch));
        if as_one.cost() < by_row.cost() { as_one } else { by_row }
    }

    fn cut(n_lines: usize, line: usize, per_line: usize, pitch: Option<usize>) -> Self {
        Self { len: line.div_ceil(per_line), pitch, n_lines, line, per_line }
    }

    fn cost(&self) -> usize {
        (self.n_lines * self.per_line).next_multiple_of(2) * (self.len + OVERHEAD)
    }

    /// Where the strips begin, in pairs: the last may come twice.
    pub(super) fn pairs(self) -> impl Iterator<Item = [Strip; 2]> {
        let n = self.n_lines * self.per_line;
        let strip = move |at: usize| {
            let at = at.min(n - 1);
            let position = (at % self.per_line * self.len).min(self.line - self.len);
            match self.pitch {
                Some(pitch) => Strip { y: position / pitch, x: position % pitch },
                None => Strip { y: at / self.per_line, x: position },
            }
        };
        (0..n.div_ceil(2)).map(move |pair| [strip(2 * pair), strip(2 * pair + 1)])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_pixel_is_in_a_strip_and_no_strip_goes_beyond_the_last(
            height in 1usize..40, width in 1usize..70, spare in 0usize..8, step in 1usize..4, down in 1usize..3,
        ) {
            let strips = Strips::of(Picture { height, width, step, row: down * (width * step + spare) });
            prop_assert!((1..=LONGEST).contains(&strips.len));
            let mut seen = vec![false; height * width];
            for Strip { mut y, mut x } in strips.pairs().flatten() {
                prop_assert!(x < strips.pitch.unwrap_or(width));
                for left in (0..strips.len).rev() {
                    if x < width {
                        seen[y * width + x] = true;
                    }
                    x += 1;
                    if Some(x) == strips.pitch && left > 0 {
                        (y, x) = (y + 1, 0);
                    }
                }
                prop_assert!(y < height && (strips.pitch.is_some() || x <= width));
                prop_assert!(y + 1 < height || x <= width, "behind the last pixel");
            }
            prop_assert!(seen.into_iter().all(|seen| seen));
        }
    }

    #[test]
    fn small_pictures_are_one_line_and_wide_ones_are_cut_by_row() {
        let of = |side: usize| Strips::of(Picture { height: side, width: side, step: 1, row: side + 2 });
        assert_eq!(of(7), Strips { len: 16, pitch: Some(9), n_lines: 1, line: 61, per_line: 4 });
        assert_eq!(of(14), Strips { len: 14, pitch: None, n_lines: 14, line: 14, per_line: 1 });
    }
}
