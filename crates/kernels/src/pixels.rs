//! Samples of a JPEG to pixels: the inverse transform, upsampling and colours, to the bit as libjpeg-turbo.
//!
//! Invariant: every form gives the same levels; one is compiled for AVX2, which needs half the instructions.

#![cfg_attr(
    target_arch = "x86_64",
    expect(unsafe_code, reason = "a function for AVX2 is called where the processor has it")
)]

/// A block's coefficients in rows.
pub type Block = [i16; 64];

/// Declares a function that runs another one, compiled for AVX2 where the processor has it.
macro_rules! in_the_best_form {
    ($(#[$doc:meta])* $name:ident($($argument:ident: $kind:ty),*) = $plain:ident) => {
        $(#[$doc])*
        #[inline]
        pub fn $name($($argument: $kind),*) {
            #[cfg(target_arch = "x86_64")]
            if std::arch::is_x86_feature_detected!("avx2") {
                #[target_feature(enable = "avx2")]
                fn with_avx2($($argument: $kind),*) {
                    $plain($($argument),*);
                }
                // SAFETY: the processor has AVX2.
                return unsafe { with_avx2($($argument),*) };
            }
            $plain($($argument),*);
        }
    };
}

in_the_best_form! {
    /// Transforms dequantised coefficients, and writes samples of 0 to 255 into eight rows of `samples` that
    /// are `stride` apart. `last` is the place of the last coefficient that is not 0, in coded order. To the
    /// bit as libjpeg's slow integer transform: Loeffler, Ligtenberg and Moschytz, "Practical Fast 1-D DCT
    /// Algorithms with 11 Multiplications", ICASSP 1989.
    transform(block: &Block, last: usize, samples: &mut [u8], stride: usize) = transform_plainly
}

in_the_best_form! {
    /// Doubles a row of three samples or more: three parts of a sample and one of its neighbour. `row` has
    /// twice as many.
    double(samples: &[u8], row: &mut [u8]) = double_plainly
}

in_the_best_form! {
    /// Doubles a row of three samples or more, after blending three parts of it and one of the `far` row.
    /// `sums` has as many samples as a row, and `row` twice as many.
    double_between(near: &[u8], far: &[u8], sums: &mut [u16], row: &mut [u8]) = double_between_plainly
}

in_the_best_form! {
    /// Blends three parts of a row and one of another; `bias` decides how halves are rounded.
    blend(near: &[u8], far: &[u8], bias: u16, row: &mut [u8]) = blend_plainly
}

in_the_best_form! {
    /// Turns rows of Y, Cb and Cr into red, green and blue of each pixel, ITU-R BT.601.
    ycbcr_to_rgb(y: &[u8], cb: &[u8], cr: &[u8], colours: &mut [u8]) = ycbcr_to_rgb_plainly
}

/// Fractional bits of the constants, and of what is between the two passes.
const CONST_BITS: u32 = 13;
const PASS1_BITS: u32 = 2;

/// A constant of the transform in fixed point.
const fn fix(value: f64) -> i32 {
    (value * (1 << CONST_BITS) as f64 + 0.5) as i32
}

const C0_298: i32 = fix(0.298_631_336);
const C0_390: i32 = fix(0.390_180_644);
const C0_541: i32 = fix(0.541_196_100);
const C0_765: i32 = fix(0.765_366_865);
const C0_899: i32 = fix(0.899_976_223);
const C1_175: i32 = fix(1.175_875_602);
const C1_501: i32 = fix(1.501_321_110);
const C1_847: i32 = fix(1.847_759_065);
const C1_961: i32 = fix(1.961_570_560);
const C2_053: i32 = fix(2.053_119_869);
const C2_562: i32 = fix(2.562_915_447);
const C3_072: i32 = fix(3.072_711_026);

/// Coefficients up to this place, in coded order, lie in the first four rows and columns.
const LAST_OF_CORNER: usize = 9;

#[inline(always)]
fn transform_plainly(block: &Block, last: usize, samples: &mut [u8], stride: usize) {
    if last == 0 {
        return write(&[[constant(block[0]); 8]; 8], samples, stride);
    }
    let rows = if last <= LAST_OF_CORNER { both_passes::<4>(block) } else { both_passes::<8>(block) };
    write(&rows, samples, stride);
}

#[inline(always)]
fn write(rows: &[[i16; 8]; 8], samples: &mut [u8], stride: usize) {
    for (row, line) in rows.iter().zip(samples.chunks_mut(stride)) {
        if let Some(line) = line.first_chunk_mut::<8>() {
            *line = row.map(|level| level.saturating_add(128).clamp(0, 255) as u8);
        }
    }
}

/// The level of a block whose only coefficient is its mean.
fn constant(mean: i16) -> i16 {
    ((i32::from(mean) + 4) >> 3) as i16
}

/// Transforms columns, then rows, of which only the first `N` are not 0.
#[inline(always)]
fn both_passes<const N: usize>(block: &Block) -> [[i16; 8]; 8] {
    let rows = block.as_chunks::<8>().0;
    let columns = pass::<{ CONST_BITS - PASS1_BITS }, N>(&std::array::from_fn(|row| rows[row]));
    let rows = transpose(&columns);
    transpose(&pass::<{ CONST_BITS + PASS1_BITS + 3 }, N>(&std::array::from_fn(|row| rows[row])))
}

/// Makes columns of rows by three perfect shuffles, each of which turns the bits of an index by one.
#[inline(always)]
fn transpose(rows: &[[i16; 8]; 8]) -> [[i16; 8]; 8] {
    let shuffled = |rows: &[[i16; 8]; 8]| -> [[i16; 8]; 8] {
        std::array::from_fn(|row| {
            let (one, other, from) = (rows[row / 2], rows[row / 2 + 4], row % 2 * 4);
            std::array::from_fn(|x| if x % 2 == 0 { one[from + x / 2] } else { other[from + x / 2] })
        })
    };
    shuffled(&shuffled(&shuffled(rows)))
}

/// Transforms the eight columns side by side, where rows beyond `N` are 0, and drops `SHIFT` fractional
/// bits. Sums of two inputs wrap, so that every product is one of 16 bits.
#[inline(always)]
fn pass<const SHIFT: u32, const N: usize>(rows: &[[i16; 8]; N]) -> [[i16; 8]; 8] {
    let mut out = [[0i16; 8]; 8];
    for x in 0..8 {
        let at = |row: usize| if row < N { rows[row][x] } else { 0 };
        let product = |input: i16, factor: i32| i32::from(input) * factor;
        // Even part.
        let (z2, z3) = (at(2), at(6));
        let t2 = product(z2, C0_541) + product(z3, C0_541 - C1_847);
        let t3 = product(z2, C0_541 + C0_765) + product(z3, C0_541);
        let t0 = (i32::from(at(0)) + i32::from(at(4))) << CONST_BITS;
        let t1 = (i32::from(at(0)) - i32::from(at(4))) << CONST_BITS;
        let even = [t0 + t3, t1 + t2, t1 - t2, t0 - t3];
        // Odd part.
        let (a, b, c, d) = (at(7), at(5), at(3), at(1));
        let (z3, z4) = (a.wrapping_add(c), b.wrapping_add(d));
        let y3 = product(z3, C1_175 - C1_961) + product(z4, C1_175);
        let y4 = product(z3, C1_175) + product(z4, C1_175 - C0_390);
        let odd = [
            product(d, C1_501 - C0_899) - product(a, C0_899) + y4,
            product(c, C3_072 - C2_562) - product(b, C2_562) + y3,
            product(b, C2_053 - C2_562) - product(c, C2_562) + y4,
            product(a, C0_298 - C0_899) - product(d, C0_899) + y3,
        ];
        for k in 0..4 {
            out[k][x] = rounded::<SHIFT>(even[k].wrapping_add(odd[k]));
            out[7 - k][x] = rounded::<SHIFT>(even[k].wrapping_sub(odd[k]));
        }
    }
    out
}

#[inline(always)]
fn rounded<const SHIFT: u32>(value: i32) -> i16 {
    (value.wrapping_add(1 << (SHIFT - 1)) >> SHIFT).clamp(i16::MIN.into(), i16::MAX.into()) as i16
}

/// Doubles a row of three samples or more; those at its ends have themselves for neighbours.
#[inline(always)]
fn double_plainly(samples: &[u8], row: &mut [u8]) {
    let blend = |near: u8, far: u8, bias: u16| ((u16::from(near) * 3 + u16::from(far) + bias) >> 2) as u8;
    let ends = [(0, 0, 1), (samples.len() - 1, samples.len() - 2, samples.len() - 1)];
    for (at, left, right) in ends {
        row[at * 2] = blend(samples[at], samples[left], 1);
        row[at * 2 + 1] = blend(samples[at], samples[right], 2);
    }
    for (window, out) in samples.windows(3).zip(row[2..].as_chunks_mut::<2>().0) {
        *out = [blend(window[1], window[0], 1), blend(window[1], window[2], 2)];
    }
}

/// As [`double_plainly`], of sums of four parts.
#[inline(always)]
fn double_between_plainly(near: &[u8], far: &[u8], sums: &mut [u16], row: &mut [u8]) {
    for ((sum, near), far) in sums.iter_mut().zip(near).zip(far) {
        *sum = u16::from(*near) * 3 + u16::from(*far);
    }
    let sums = &*sums;
    let blend = |near: u16, far: u16, bias: u16| ((near * 3 + far + bias) >> 4) as u8;
    let ends = [(0, 0, 1), (sums.len() - 1, sums.len() - 2, sums.len() - 1)];
    for (at, left, right) in ends {
        row[at * 2] = blend(sums[at], sums[left], 8);
        row[at * 2 + 1] = blend(sums[at], sums[right], 7);
    }
    for (window, out) in sums.windows(3).zip(row[2..].as_chunks_mut::<2>().0) {
        *out = [blend(window[1], window[0], 8), blend(window[1], window[2], 7)];
    }
}

#[inline(always)]
fn blend_plainly(near: &[u8], far: &[u8], bias: u16, row: &mut [u8]) {
    for ((out, near), far) in row.iter_mut().zip(near).zip(far) {
        *out = ((u16::from(*near) * 3 + u16::from(*far) + bias) >> 2) as u8;
    }
}

/// Pixels that are converted side by side.
const SIDE_BY_SIDE: usize = 16;

#[inline(always)]
fn ycbcr_to_rgb_plainly(y: &[u8], cb: &[u8], cr: &[u8], colours: &mut [u8]) {
    let (y_chunks, y_rest) = y.as_chunks::<SIDE_BY_SIDE>();
    let (cb_chunks, cb_rest) = cb.as_chunks::<SIDE_BY_SIDE>();
    let (cr_chunks, cr_rest) = cr.as_chunks::<SIDE_BY_SIDE>();
    let mut pixels = colours.chunks_mut(3 * SIDE_BY_SIDE);
    for (((y, cb), cr), pixels) in y_chunks.iter().zip(cb_chunks).zip(cr_chunks).zip(&mut pixels) {
        ycbcr_chunk(y, cb, cr, pixels);
    }
    if let Some(pixels) = pixels.next() {
        let padded = |rest: &[u8]| {
            let mut padded = [0; SIDE_BY_SIDE];
            padded[..rest.len()].copy_from_slice(rest);
            padded
        };
        ycbcr_chunk(&padded(y_rest), &padded(cb_rest), &padded(cr_rest), pixels);
    }
}

/// ITU-R BT.601 in 16 bits of fraction. Whole parts are taken out of the factors, so that these have 16
/// bits themselves: 1.402 is 1 + 26345 / 65536, 1.772 is 2 - 14942 / 65536, 0.71414 is 1 - 18734 / 65536.
#[inline(always)]
fn ycbcr_chunk(y: &[u8; SIDE_BY_SIDE], cb: &[u8; SIDE_BY_SIDE], cr: &[u8; SIDE_BY_SIDE], pixels: &mut [u8]) {
    const HALF: i32 = 1 << 15;
    let mut planes = [[0u8; SIDE_BY_SIDE]; 3];
    for x in 0..SIDE_BY_SIDE {
        let y = i16::from(y[x]);
        let (cb, cr) = (i16::from(cb[x]) - 128, i16::from(cr[x]) - 128);
        let product = |factor: i16, chroma: i16| i32::from(factor) * i32::from(chroma);
        let red = y + cr + ((product(26345, cr) + HALF) >> 16) as i16;
        let green = y - cr + ((product(-22554, cb) + product(18734, cr) + HALF) >> 16) as i16;
        let blue = y + 2 * cb + ((product(-14942, cb) + HALF) >> 16) as i16;
        for (plane, level) in planes.iter_mut().zip([red, green, blue]) {
            plane[x] = level.clamp(0, 255) as u8;
        }
    }
    if let Some(pixels) = pixels.first_chunk_mut::<{ 3 * SIDE_BY_SIDE }>() {
        let (reds, greens, blues) = (planes[0], planes[1], planes[2]);
        for quarter in 0..4 {
            let at = 4 * quarter;
            let triples: [u8; 12] = std::array::from_fn(|n| match n % 3 {
                0 => reds[at + n / 3],
                1 => greens[at + n / 3],
                _ => blues[at + n / 3],
            });
            pixels[3 * at..3 * at + 12].copy_from_slice(&triples);
        }
        return;
    }
    for (x, pixel) in pixels.as_chunks_mut::<3>().0.iter_mut().enumerate().take(SIDE_BY_SIDE) {
        *pixel = [planes[0][x], planes[1][x], planes[2][x]];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_ycbcr_is_the_colour_that_libjpeg_computes() {
        // jdcolor.c, build_ycc_rgb_table: the factors with 16 bits of fraction.
        let clamp = |level: i32| level.clamp(0, 255) as u8;
        for cb in 0..=255u8 {
            for cr in 0..=255u8 {
                let (b, r) = (i32::from(cb) - 128, i32::from(cr) - 128);
                let ys: Vec<u8> = (0..=255).collect();
                let mut colours = vec![0; 3 * 256];
                ycbcr_to_rgb(&ys, &[cb; 256], &[cr; 256], &mut colours);
                for (y, pixel) in ys.iter().zip(colours.as_chunks::<3>().0) {
                    let y = i32::from(*y);
                    let expected = [
                        clamp(y + ((91881 * r + 32768) >> 16)),
                        clamp(y + ((-22554 * b - 46802 * r + 32768) >> 16)),
                        clamp(y + ((116_130 * b + 32768) >> 16)),
                    ];
                    assert_eq!(*pixel, expected, "y {y}, cb {cb}, cr {cr}");
                }
            }
        }
    }

    #[test]
    fn every_length_of_row_is_converted() {
        for width in 1..40 {
            let row: Vec<u8> = (0..width).map(|x| x as u8 * 5).collect();
            let mut colours = vec![0; 3 * width];
            ycbcr_to_rgb(&row, &vec![128; width], &vec![128; width], &mut colours);
            let expected: Vec<u8> = row.iter().flat_map(|level| [*level; 3]).collect();
            assert_eq!(colours, expected);
        }
    }

    /// The transform by its definition (T.81, A.3.3).
    fn by_definition(block: &Block) -> [f64; 64] {
        let scale = |u: usize| if u == 0 { 0.5f64.sqrt() } else { 1.0 };
        let cosine = |x: usize, u: usize| ((2 * x + 1) as f64 * u as f64 * std::f64::consts::PI / 16.0).cos();
        std::array::from_fn(|at| {
            let (x, y) = (at % 8, at / 8);
            let sum: f64 = (0..64)
                .map(|from| {
                    let (u, v) = (from % 8, from / 8);
                    scale(u) * scale(v) * f64::from(block[from]) * cosine(x, u) * cosine(y, v)
                })
                .sum();
            (sum / 4.0 + 128.0).clamp(0.0, 255.0)
        })
    }

    proptest! {
        #[test]
        fn the_transform_is_that_of_the_standard_in_every_form(
            mean in -1000i16..1000,
            rest in prop::collection::vec((1usize..64, -200i16..200), 0..20),
        ) {
            let mut block = [0; 64];
            block[0] = mean;
            rest.iter().for_each(|(at, value)| block[*at] = *value);
            let corner = |at: usize| at % 8 + at / 8 < 4;
            let last = match block.iter().rposition(|value| *value != 0) {
                None | Some(0) => 0,
                _ if (0..64).all(|at| block[at] == 0 || corner(at)) => 9,
                _ => 63,
            };
            let (mut samples, mut plain) = ([0; 64], [0; 64]);
            transform(&block, last, &mut samples, 8);
            transform_plainly(&block, last, &mut plain, 8);
            prop_assert_eq!(samples, plain);
            for (sample, expected) in samples.iter().zip(by_definition(&block)) {
                prop_assert!((f64::from(*sample) - expected).abs() <= 1.01, "{} for {}", sample, expected);
            }
        }

        #[test]
        fn rows_are_the_same_in_every_form(rows in prop::collection::vec(any::<[u8; 3]>(), 3..200)) {
            let row = |at: usize| rows.iter().map(|row| row[at]).collect::<Vec<u8>>();
            let (a, b, c) = (row(0), row(1), row(2));
            let zeros = |times: usize| vec![0u8; times * a.len()];
            let mut sums = vec![0; a.len()];
            let (mut found, mut plain) = (zeros(2), zeros(2));
            double(&a, &mut found);
            double_plainly(&a, &mut plain);
            prop_assert_eq!(&found, &plain);
            double_between(&a, &b, &mut sums, &mut found);
            double_between_plainly(&a, &b, &mut sums, &mut plain);
            prop_assert_eq!(&found, &plain);
            let (mut found, mut plain) = (zeros(3), zeros(3));
            ycbcr_to_rgb(&a, &b, &c, &mut found);
            ycbcr_to_rgb_plainly(&a, &b, &c, &mut plain);
            prop_assert_eq!(&found, &plain);
            let (mut found, mut plain) = (zeros(1), zeros(1));
            blend(&a, &b, 2, &mut found);
            blend_plainly(&a, &b, 2, &mut plain);
            prop_assert_eq!(&found, &plain);
        }
    }
}
