//! The tasks that there are.

use super::{Descriptor, face_detection, image_classification, text_classification};

/// Every task, in the order in which errors and pages list them.
pub static TASKS: &[&Descriptor] =
    &[&image_classification::DESCRIPTOR, &face_detection::DESCRIPTOR, &text_classification::DESCRIPTOR];

/// Finds a task by its name in `model.toml`.
pub fn descriptor_of(name: &str) -> Option<&'static Descriptor> {
    TASKS.iter().copied().find(|task| task.name == name)
}

/// The names of all tasks, for errors.
pub fn names() -> String {
    TASKS.iter().map(|task| format!("`{}`", task.name)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_options_too() {
        for (idx, task) in TASKS.iter().enumerate() {
            assert!(TASKS[..idx].iter().all(|other| other.name != task.name), "{}", task.name);
            for (idx, option) in task.options.iter().enumerate() {
                assert!(task.options[..idx].iter().all(|other| other.name != option.name), "{}", option.name);
                assert!(!option.about.is_empty());
            }
        }
    }
}
