//! The lengths that rows of tokens are padded to.

/// The lengths that rows are padded to: rows of one length share a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buckets {
    lengths: Vec<usize>,
}

impl Buckets {
    /// Makes the shortest table for texts of 1 to `max_tokens` tokens in which at most a quarter of
    /// any padded row is padding.
    pub fn new(max_tokens: usize) -> Self {
        // A row of one token more than the last length is the emptiest: it needs 3/4 of the next.
        let next = |length: &usize| Some((length + 1) * 4 / 3);
        let lengths = std::iter::successors(Some(1), next)
            .take_while(|length| *length < max_tokens)
            .chain([max_tokens])
            .collect();
        Self { lengths }
    }

    /// The table of a network whose rows always have this length.
    pub fn only(length: usize) -> Self {
        Self { lengths: vec![length] }
    }

    /// The same table for texts of at least `least` tokens, or rows that are padded up to it: nothing is shorter.
    #[must_use]
    pub fn starting_at(self, least: usize) -> Self {
        let longer = self.lengths.into_iter().filter(|length| *length > least);
        Self { lengths: (least > 0).then_some(least).into_iter().chain(longer).collect() }
    }

    /// Every length, ascending.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// The length that a row of `tokens` is padded to; the longest for more than it holds.
    pub fn of(&self, tokens: usize) -> usize {
        let at = self.lengths.partition_point(|length| *length < tokens);
        self.lengths.get(at).or(self.lengths.last()).copied().unwrap_or(tokens)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn buckets_grow_by_a_third() {
        let buckets = Buckets::new(64);
        assert_eq!(buckets.lengths(), [1, 2, 4, 6, 9, 13, 18, 25, 34, 46, 62, 64]);
        assert_eq!((buckets.of(1), buckets.of(5), buckets.of(62), buckets.of(1000)), (1, 6, 62, 64));
        assert_eq!(Buckets::new(1).lengths(), [1]);
        for (least, lengths) in [(0, vec![1, 2, 4, 6, 7]), (3, vec![3, 4, 6, 7]), (7, vec![7])] {
            assert_eq!(Buckets::new(7).starting_at(least).lengths(), lengths);
        }
    }

    proptest! {
        #[test]
        fn padding_is_never_more_than_a_quarter(max_tokens in 1usize..9000, share in 0.0..1.0) {
            let buckets = Buckets::new(max_tokens);
            prop_assert!(buckets.lengths().windows(2).all(|pair| pair[0] < pair[1]));
            let tokens = 1 + (share * max_tokens as f64) as usize % max_tokens;
            let length = buckets.of(tokens);
            prop_assert!(length >= tokens && length <= max_tokens);
            prop_assert!((length - tokens) * 4 <= length, "{tokens} tokens in {length}");
        }
    }
}
