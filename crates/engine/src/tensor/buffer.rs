//! Bytes that are aligned for a tensor's elements.
//!
//! Invariant: what [`owned`] and [`gathered`] return begins at a multiple of the size of its elements.

use bytes::Bytes;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::element::Element;

/// Takes a vector's memory as it is: nothing is copied.
pub(super) fn owned<T: Element>(elements: Vec<T>) -> Bytes {
    struct Owner<T>(Vec<T>);

    impl<T: Element> AsRef<[u8]> for Owner<T> {
        fn as_ref(&self) -> &[u8] {
            T::as_bytes(&self.0)
        }
    }

    Bytes::from_owner(Owner(elements))
}

/// Copies `parts`, one after the other, into one buffer for elements of `size` bytes: 1, 2, 4 or 8.
pub(super) fn gathered<'a>(size: usize, parts: impl Iterator<Item = &'a [u8]> + Clone) -> Bytes {
    match size {
        2 => words::<u16>(parts),
        4 => words::<u32>(parts),
        8 => words::<u64>(parts),
        _ => words::<u8>(parts),
    }
}

fn words<'a, W>(parts: impl Iterator<Item = &'a [u8]> + Clone) -> Bytes
where
    W: Element + FromBytes + IntoBytes + Immutable + KnownLayout,
{
    let n_bytes: usize = parts.clone().map(<[u8]>::len).sum();
    let mut words: Vec<W> = Vec::with_capacity(n_bytes / size_of::<W>());
    for part in parts {
        match W::of_bytes(part) {
            Some(part) => words.extend_from_slice(part),
            // A part that is not aligned itself is read word by word.
            None => {
                let read = part.chunks_exact(size_of::<W>()).filter_map(|word| W::read_from_bytes(word).ok());
                words.extend(read);
            }
        }
    }
    owned(words)
}
