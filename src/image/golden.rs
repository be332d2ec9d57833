//! Numbers that Pillow computed, which resizing is held to.

use crate::manifest::{Filter, Fit};

/// What Pillow makes of the formula picture.
#[derive(Debug)]
pub(super) struct Golden {
    pub(super) from: (u32, u32),
    pub(super) to: (u32, u32),
    pub(super) filter: Filter,
    pub(super) fit: Fit,
    pub(super) levels: &'static [u8],
}

/// Computed once with Pillow 13.0.0: `crop(box).resize(to, filter)`, `box` the whole picture or,
/// for `Cover`, its largest centred part of the target's aspect.
pub(super) const GOLDEN: &[Golden] = &[
    Golden {
        from: (40, 30),
        to: (8, 6),
        filter: Filter::Bilinear,
        fit: Fit::Stretch,
        levels: &[
            77, 131, 148, 145, 119, 95, 113, 107, 142, 140, 128, 104, 95, 104, 119, 161, 126, 103, 99, 103,
            130, 157, 155, 138, 108, 98, 127, 153, 166, 141, 127, 106, 119, 151, 152, 136, 127, 104, 95, 114,
            160, 159, 143, 103, 90, 94, 129, 155,
        ],
    },
    Golden {
        from: (40, 30),
        to: (8, 6),
        filter: Filter::Bicubic,
        fit: Fit::Stretch,
        levels: &[
            69, 133, 149, 151, 119, 91, 115, 103, 147, 145, 131, 101, 91, 99, 116, 168, 129, 99, 94, 96, 130,
            165, 160, 137, 104, 92, 127, 159, 172, 145, 128, 100, 118, 155, 155, 137, 128, 98, 88, 113, 161,
            164, 144, 99, 87, 91, 131, 163,
        ],
    },
    Golden {
        from: (50, 30),
        to: (7, 7),
        filter: Filter::Bilinear,
        fit: Fit::Cover,
        levels: &[
            147, 146, 144, 90, 116, 113, 99, 138, 120, 102, 93, 97, 116, 160, 103, 91, 96, 127, 145, 152,
            152, 100, 123, 151, 163, 167, 140, 115, 145, 157, 161, 141, 118, 103, 104, 151, 128, 127, 104,
            92, 99, 126, 143, 108, 86, 96, 93, 154, 158,
        ],
    },
    Golden {
        from: (23, 37),
        to: (6, 6),
        filter: Filter::Bicubic,
        fit: Fit::Cover,
        levels: &[
            156, 142, 123, 117, 82, 77, 133, 102, 92, 95, 95, 121, 117, 78, 98, 119, 153, 175, 97, 116, 143,
            164, 155, 154, 134, 167, 163, 138, 117, 124, 164, 159, 158, 142, 93, 80,
        ],
    },
    Golden {
        from: (5, 4),
        to: (9, 7),
        filter: Filter::Bilinear,
        fit: Fit::Stretch,
        levels: &[
            0, 2, 6, 10, 14, 18, 22, 26, 28, 5, 7, 12, 17, 22, 27, 32, 37, 40, 12, 16, 23, 29, 35, 42, 48,
            55, 59, 20, 25, 33, 41, 49, 57, 65, 73, 78, 27, 33, 42, 52, 62, 71, 81, 90, 96, 34, 41, 53, 64,
            75, 86, 97, 109, 115, 39, 46, 59, 71, 83, 95, 107, 120, 127,
        ],
    },
    Golden {
        from: (6, 6),
        to: (10, 10),
        filter: Filter::Bicubic,
        fit: Fit::Stretch,
        levels: &[
            0, 1, 6, 9, 13, 18, 22, 26, 30, 33, 4, 7, 13, 17, 22, 28, 33, 38, 44, 48, 12, 17, 25, 32, 39, 47,
            54, 61, 69, 74, 20, 25, 36, 45, 53, 63, 72, 81, 91, 97, 27, 34, 47, 57, 68, 79, 90, 101, 113,
            120, 35, 43, 57, 70, 82, 96, 108, 120, 135, 143, 42, 52, 68, 82, 97, 112, 126, 140, 157, 166, 50,
            60, 79, 95, 111, 128, 144, 160, 179, 189, 59, 70, 91, 110, 128, 147, 165, 183, 204, 215, 64, 76,
            98, 118, 137, 157, 176, 195, 218, 230,
        ],
    },
];
