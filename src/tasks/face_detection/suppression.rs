//! One face, one box: greedy non-maximum suppression.
//!
//! Invariant: no two boxes that are kept overlap by more than was allowed, and what is dropped overlaps
//! one that is surer.

use super::grids::Candidate;

/// Keeps candidates, the surest first, that overlap none kept before by more than `overlap` (intersection
/// over union); at most `most`. Equally sure ones keep their order.
pub(super) fn suppress(mut candidates: Vec<Candidate>, overlap: f32, most: usize) -> Vec<Candidate> {
    // The sort is stable.
    candidates.sort_by(|a, b| b.logit.total_cmp(&a.logit));
    let mut kept: Vec<Candidate> = Vec::new();
    for candidate in candidates {
        if kept.len() == most {
            break;
        }
        if kept.iter().all(|other| intersection_over_union(other, &candidate) <= overlap) {
            kept.push(candidate);
        }
    }
    kept
}

/// Shares of two boxes that are each other's; 0 where either has no area.
fn intersection_over_union(one: &Candidate, other: &Candidate) -> f32 {
    let ([left, top], [right, bottom]) = (
        [one.from[0].max(other.from[0]), one.from[1].max(other.from[1])],
        [one.to[0].min(other.to[0]), one.to[1].min(other.to[1])],
    );
    let shared = (right - left).max(0.0) * (bottom - top).max(0.0);
    let either = one.area() + other.area() - shared;
    if either > 0.0 { shared / either } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidate(logit: f32, [x, y, width, height]: [f32; 4]) -> Candidate {
        Candidate { logit, from: [x, y], to: [x + width, y + height], landmarks: None }
    }

    fn logits(kept: &[Candidate]) -> Vec<f32> {
        kept.iter().map(|candidate| candidate.logit).collect()
    }

    #[test]
    fn of_boxes_that_overlap_the_surest_stays() {
        let boxes = vec![
            candidate(1.0, [0.0, 0.0, 10.0, 10.0]),
            candidate(3.0, [1.0, 0.0, 10.0, 10.0]),
            candidate(2.0, [50.0, 0.0, 10.0, 10.0]),
        ];
        assert_eq!(logits(&suppress(boxes.clone(), 0.45, 9)), [3.0, 2.0]);
        assert_eq!(logits(&suppress(boxes.clone(), 0.9, 9)), [3.0, 2.0, 1.0]);
        assert_eq!(logits(&suppress(boxes, 0.9, 1)), [3.0]);
    }

    #[test]
    fn the_overlap_is_the_shared_area_over_that_of_both() {
        let half = [candidate(1.0, [0.0, 0.0, 2.0, 1.0]), candidate(0.0, [1.0, 0.0, 2.0, 1.0])];
        assert_eq!(intersection_over_union(&half[0], &half[1]), 1.0 / 3.0);
        let nothing = candidate(0.0, [0.0, 0.0, 0.0, 5.0]);
        assert_eq!(intersection_over_union(&nothing, &nothing), 0.0);
    }

    proptest! {
        #[test]
        fn what_is_kept_does_not_overlap_and_what_is_dropped_does(
            boxes in prop::collection::vec((-9.0f32..9.0, 0.0f32..50.0, 0.0f32..50.0, 1.0f32..30.0, 1.0f32..30.0), 0..60),
            overlap in 0.05f32..0.95,
        ) {
            let all: Vec<Candidate> = boxes
                .into_iter()
                .map(|(logit, x, y, width, height)| candidate(logit, [x, y, width, height]))
                .collect();
            let kept = suppress(all.clone(), overlap, usize::MAX);
            prop_assert!(kept.is_sorted_by(|a, b| a.logit >= b.logit));
            for (idx, one) in kept.iter().enumerate() {
                prop_assert!(kept[..idx].iter().all(|other| intersection_over_union(one, other) <= overlap));
            }
            for one in &all {
                let surer = |other: &&Candidate| other.logit >= one.logit;
                prop_assert!(kept.iter().filter(surer).any(|other| other == one || intersection_over_union(one, other) > overlap));
            }
        }
    }
}
