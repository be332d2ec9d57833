//! Writes JPEGs of every kind, and what Lepton makes of them, for `tests/differential/jpeg.py`.
//!
//! `jpegs FIRST COUNT` writes for each seed from FIRST on: the recipe as text, the file, and the answer in
//! colour and in grey. Each is a length of four bytes, little end first, and that number of bytes. An answer
//! begins with `+`, and levels follow, channel by channel; or it begins with `-`, and the refusal follows,
//! or with `!` where decoding panicked. A panic is never right.

use std::{
    error::Error,
    io::{BufWriter, Write, stdout},
    panic::{AssertUnwindSafe, catch_unwind},
};

use lepton_media::{
    MediaError,
    image::{Color, Filter, Fit, ImageInputSpec, ImageLimits, Picture, Preprocessing},
};
use lepton_testkit::jpegs;

const LIMITS: ImageLimits = ImageLimits { pixels: 25_000_000, side: 8192, memory: 1 << 28 };

fn main() -> Result<(), Box<dyn Error>> {
    let numbers = std::env::args().skip(1).map(|argument| argument.parse::<u64>());
    let [first, count] = numbers.collect::<Result<Vec<_>, _>>()?[..] else {
        return Err("usage: jpegs FIRST COUNT".into());
    };
    let mut out = BufWriter::new(stdout().lock());
    let mut put = |bytes: &[u8]| -> std::io::Result<()> {
        out.write_all(&(bytes.len() as u32).to_le_bytes())?;
        out.write_all(bytes)
    };
    for seed in first..first + count {
        let recipe = jpegs::Recipe::random(seed);
        let file = recipe.encode();
        put(format!("{recipe:?}").as_bytes())?;
        put(&file)?;
        for color in [Color::Rgb, Color::Gray] {
            put(&answer(&file, color))?;
        }
    }
    Ok(())
}

fn answer(file: &[u8], color: Color) -> Vec<u8> {
    match catch_unwind(AssertUnwindSafe(|| levels(file, color))) {
        Ok(Ok(levels)) => [b"+".as_slice(), &levels].concat(),
        Ok(Err(refusal)) => [b"-", refusal.to_string().as_bytes()].concat(),
        Err(_) => b"!".to_vec(),
    }
}

/// The levels of a picture in its own size, channel by channel.
fn levels(file: &[u8], color: Color) -> Result<Vec<u8>, MediaError> {
    let row = |width, height| {
        Preprocessing::new(&ImageInputSpec {
            name: "image".to_owned(),
            width,
            height,
            color,
            fit: Fit::Stretch,
            filter: Filter::Bilinear,
            layout: Default::default(),
            resampling: Default::default(),
            scale: 1.0,
            mean: vec![0.0],
            std: vec![1.0],
        })
    };
    let picture = Picture::decode(file, LIMITS, row(1, 1).channels())?;
    let levels = row(picture.width(), picture.height()).row(&picture, picture.whole())?;
    Ok(levels.iter().map(|level| *level as u8).collect())
}
