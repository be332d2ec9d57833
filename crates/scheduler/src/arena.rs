//! Values under keys that are never used for another value.
//!
//! Invariant: a key finds the value that it was given for, or nothing: the place of a removed value is used again, its
//! key is not.

/// Where a value stands, and in which generation of the place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    index: usize,
    generation: u64,
}

/// Values under generational keys.
#[derive(Debug)]
pub struct Arena<T> {
    places: Vec<Entry<T>>,
}

#[derive(Debug)]
struct Entry<T> {
    generation: u64,
    value: Option<T>,
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Self { places: Vec::new() }
    }
}

impl<T> Arena<T> {
    /// Adds a value and returns its key.
    pub fn insert(&mut self, value: T) -> Key {
        let free = self.places.iter().position(|place| place.value.is_none());
        let index = free.unwrap_or(self.places.len());
        if let Some(place) = self.places.get_mut(index) {
            place.generation += 1;
            place.value = Some(value);
            return Key { index, generation: place.generation };
        }
        self.places.push(Entry { generation: 0, value: Some(value) });
        Key { index, generation: 0 }
    }

    /// Removes the value under `key`; `None` where there is none any more.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let place = self.places.get_mut(key.index).filter(|place| place.generation == key.generation);
        place.and_then(|place| place.value.take())
    }

    /// Returns the value under `key`.
    pub fn get(&self, key: Key) -> Option<&T> {
        let place = self.places.get(key.index).filter(|place| place.generation == key.generation)?;
        place.value.as_ref()
    }

    /// Returns the value under `key`, to be changed.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let place = self.places.get_mut(key.index).filter(|place| place.generation == key.generation)?;
        place.value.as_mut()
    }

    /// How many places there are, in use or not.
    pub fn n_places(&self) -> usize {
        self.places.len()
    }

    /// Every value with its key.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        let places = self.places.iter().enumerate();
        places.filter_map(|(index, place)| {
            Some((Key { index, generation: place.generation }, place.value.as_ref()?))
        })
    }

    /// Every value.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.places.iter().filter_map(|place| place.value.as_ref())
    }

    /// Every value, to be changed.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.places.iter_mut().filter_map(|place| place.value.as_mut())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_used_again_and_a_key_is_not() {
        let mut arena = Arena::default();
        let (a, b) = (arena.insert('a'), arena.insert('b'));
        assert_eq!(arena.remove(a), Some('a'));
        let c = arena.insert('c');
        assert_eq!((arena.get(a), arena.get(b), arena.get(c)), (None, Some(&'b'), Some(&'c')));
        assert_eq!(arena.remove(a), None, "its key is another's place by now");
        assert_eq!(arena.iter().map(|(key, value)| (key, *value)).collect::<Vec<_>>(), [(c, 'c'), (b, 'b')]);
        *arena.get_mut(b).unwrap() = 'd';
        assert_eq!(arena.values().copied().collect::<String>(), "cd");
        assert_eq!(arena.n_places(), 2);
    }
}
