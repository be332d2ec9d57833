//! Sizes and numbers as the various versions of `preprocessor_config.json` write them.

use serde::Deserialize;

/// A size as the various versions of the format write it.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(untagged, expecting = "a number, [height, width], or height and width or shortest_edge by name")]
pub(super) enum Size {
    Number(u32),
    Pair([u32; 2]),
    Named(Sides),
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sides {
    height: Option<u32>,
    width: Option<u32>,
    shortest_edge: Option<u32>,
    /// Written as null where it is not used.
    longest_edge: Option<u32>,
    max_height: Option<u32>,
    max_width: Option<u32>,
}

/// One number for all channels, or one for each.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged, expecting = "a number or a list of numbers")]
pub(super) enum Numbers {
    One(f64),
    Each(Vec<f64>),
}

impl Numbers {
    pub(super) fn list(&self) -> Vec<f64> {
        match self {
            Self::One(number) => vec![*number],
            Self::Each(numbers) => numbers.clone(),
        }
    }
}

/// The size that a picture is scaled to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scaled {
    Unscaled,
    Shortest(u32),
    To { width: u32, height: u32 },
}

impl Size {
    /// Width and height, where a number stands for `of_number`.
    pub(super) fn exactly(
        self,
        key: &str,
        of_number: impl Fn(u32) -> (u32, u32),
    ) -> Result<(u32, u32), String> {
        match self {
            Self::Number(side) => Ok(of_number(side)),
            Self::Pair([height, width]) => Ok((width, height)),
            Self::Named(sides) => match sides.scaled(key)? {
                Scaled::To { width, height } => Ok((width, height)),
                _ => Err(format!("{key} has no height and width; expected them")),
            },
        }
    }
}

impl Sides {
    pub(super) fn scaled(self, key: &str) -> Result<Scaled, String> {
        match self {
            Self { height: Some(height), width: Some(width), shortest_edge: None, .. } if self.is_plain() => {
                Ok(Scaled::To { width, height })
            }
            Self { height: None, width: None, shortest_edge: Some(side), .. } if self.is_plain() => {
                Ok(Scaled::Shortest(side))
            }
            _ => {
                Err(format!("{key} is {self:?}; expected a number, height and width, or shortest_edge alone"))
            }
        }
    }

    fn is_plain(self) -> bool {
        (self.longest_edge, self.max_height, self.max_width) == (None, None, None)
    }
}
