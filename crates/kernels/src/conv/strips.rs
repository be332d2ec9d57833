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
    /// the next: those behind the width are no pixels of the answer. Without end where they do not.
    pub(super) pitch: usize,
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
        let by_row = Self::cut(height, width, width.div_ceil(LONGEST), usize::MAX);
        if !row.is_multiple_of(step) {
            return by_row;
        }
        let pitch = row / step;
        let line = (height - 1) * pitch + width;
        // Two strips make a block.
        let per_line = line.div_ceil(LONGEST).next_multiple_of(2);
        let as_one = Self::cut(1, line, per_line, pitch);
        if as_one.cost() < by_row.cost() { as_one } else { by_row }
    }

    fn cut(n_lines: usize, line: usize, per_line: usize, pitch: usize) -> Self {
        Self { len: line.div_ceil(per_line), pitch, n_lines, line, per_line }
    }

    fn cost(&self) -> usize {
        (self.n_lines * self.per_line).next_multiple_of(2) * (self.len + OVERHEAD)
    }

    /// Where the strips begin, in pairs: the last may come twice.
    pub(super) fn pairs(self) -> Pairs {
        Pairs { strips: self, n_lines: 0, in_line: 0, next: Strip { y: 0, x: 0 } }
    }
}

/// The strips of a cut, in pairs.
#[derive(Clone)]
pub(super) struct Pairs {
    strips: Strips,
    /// How many lines were handed out, and positions of the one that is next.
    n_lines: usize,
    in_line: usize,
    next: Strip,
}

impl Pairs {
    /// The next strip. It is found from the one before: to divide would take longer than to finish pixels.
    #[inline]
    fn strip(&mut self) -> Option<Strip> {
        let Strips { len, pitch, n_lines, line, .. } = self.strips;
        if self.n_lines == n_lines {
            return None;
        }
        let strip = self.next;
        let ahead = len.min(line - len - self.in_line);
        if ahead == 0 {
            self.n_lines += 1;
            (self.in_line, self.next) = (0, Strip { y: self.n_lines, x: 0 });
            return Some(strip);
        }
        self.in_line += ahead;
        self.next.x += ahead;
        while pitch <= self.next.x {
            self.next = Strip { y: self.next.y + 1, x: self.next.x - pitch };
        }
        Some(strip)
    }
}

impl Iterator for Pairs {
    type Item = [Strip; 2];

    #[inline]
    fn next(&mut self) -> Option<[Strip; 2]> {
        let first = self.strip()?;
        Some([first, self.strip().unwrap_or(first)])
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
                prop_assert!(x < strips.pitch);
                for left in (0..strips.len).rev() {
                    if x < width {
                        seen[y * width + x] = true;
                    }
                    x += 1;
                    if x == strips.pitch && left > 0 {
                        (y, x) = (y + 1, 0);
                    }
                }
                prop_assert!(y < height && (strips.pitch < usize::MAX || x <= width));
                prop_assert!(y + 1 < height || x <= width, "behind the last pixel");
            }
            prop_assert!(seen.into_iter().all(|seen| seen));
        }
    }

    #[test]
    fn small_pictures_are_one_line_and_wide_ones_are_cut_by_row() {
        let of = |side: usize| Strips::of(Picture { height: side, width: side, step: 1, row: side + 2 });
        assert_eq!(of(7), Strips { len: 16, pitch: 9, n_lines: 1, line: 61, per_line: 4 });
        assert_eq!(of(14), Strips { len: 14, pitch: usize::MAX, n_lines: 14, line: 14, per_line: 1 });
    }
}
