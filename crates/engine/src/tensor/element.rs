//! The types of elements, and how a slice of them is read from bytes.
//!
//! Invariant: bytes become elements only where their alignment, their number and, of a bool, their values allow it; the
//! checks are zerocopy's, and there is no `unsafe` here.

use std::fmt;

use half::{bf16, f16};
use zerocopy::{FromBytes, IntoBytes, TryFromBytes};

/// The type of a tensor's elements: every one that the Open Inference Protocol knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    Bool,
    U8,
    U16,
    U32,
    U64,
    I8,
    I16,
    I32,
    I64,
    F16,
    Bf16,
    F32,
    F64,
    /// Strings of bytes, each of a length of its own.
    Bytes,
}

impl DType {
    /// Every type.
    pub const ALL: [Self; 14] = [
        Self::Bool,
        Self::U8,
        Self::U16,
        Self::U32,
        Self::U64,
        Self::I8,
        Self::I16,
        Self::I32,
        Self::I64,
        Self::F16,
        Self::Bf16,
        Self::F32,
        Self::F64,
        Self::Bytes,
    ];

    /// Returns the short name, as in `f32`.
    pub fn name(self) -> &'static str {
        self.names().0
    }

    /// Returns the name in the Open Inference Protocol, as in `FP32`.
    pub fn protocol_name(self) -> &'static str {
        self.names().1
    }

    /// Finds the type that the Open Inference Protocol calls `name`.
    pub fn from_protocol_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.protocol_name() == name)
    }

    /// Returns the bytes of an element; `None` for [`DType::Bytes`], whose elements differ in length.
    pub fn size(self) -> Option<usize> {
        match self {
            Self::Bool | Self::U8 | Self::I8 => Some(1),
            Self::U16 | Self::I16 | Self::F16 | Self::Bf16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::Bytes => None,
        }
    }

    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Bool => ("bool", "BOOL"),
            Self::U8 => ("u8", "UINT8"),
            Self::U16 => ("u16", "UINT16"),
            Self::U32 => ("u32", "UINT32"),
            Self::U64 => ("u64", "UINT64"),
            Self::I8 => ("i8", "INT8"),
            Self::I16 => ("i16", "INT16"),
            Self::I32 => ("i32", "INT32"),
            Self::I64 => ("i64", "INT64"),
            Self::F16 => ("f16", "FP16"),
            Self::Bf16 => ("bf16", "BF16"),
            Self::F32 => ("f32", "FP32"),
            Self::F64 => ("f64", "FP64"),
            Self::Bytes => ("bytes", "BYTES"),
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A Rust type that elements of one [`DType`] have.
pub trait Element: private::Cast + Copy + PartialEq + fmt::Debug + Send + Sync + 'static {
    /// The type of a tensor of such elements.
    const DTYPE: DType;
}

pub(super) mod private {
    /// Elements as bytes in native order, and back, without a copy.
    pub trait Cast: Sized {
        fn as_bytes(elements: &[Self]) -> &[u8];

        /// `None` where the bytes are not aligned for such elements, or are no whole number of valid ones.
        fn of_bytes(bytes: &[u8]) -> Option<&[Self]>;
    }
}

macro_rules! elements {
    ($($element:ty, $dtype:ident, $read:ident;)*) => {$(
        impl private::Cast for $element {
            fn as_bytes(elements: &[Self]) -> &[u8] {
                elements.as_bytes()
            }

            fn of_bytes(bytes: &[u8]) -> Option<&[Self]> {
                <[Self]>::$read(bytes).ok()
            }
        }

        impl Element for $element {
            const DTYPE: DType = DType::$dtype;
        }
    )*};
}

elements! {
    bool, Bool, try_ref_from_bytes;
    u8, U8, ref_from_bytes;
    u16, U16, ref_from_bytes;
    u32, U32, ref_from_bytes;
    u64, U64, ref_from_bytes;
    i8, I8, ref_from_bytes;
    i16, I16, ref_from_bytes;
    i32, I32, ref_from_bytes;
    i64, I64, ref_from_bytes;
    f16, F16, ref_from_bytes;
    bf16, Bf16, ref_from_bytes;
    f32, F32, ref_from_bytes;
    f64, F64, ref_from_bytes;
}
