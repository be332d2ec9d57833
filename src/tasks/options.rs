//! What a caller chose among a task's options.
//!
//! Invariant: a value stands under the name of an [`OptionSpec`] and is one that its kind allows. A request without
//! options allocates nothing.

use std::sync::Arc;

use super::{Descriptor, OptionKind, OptionSpec};

/// The options of one request. Cloning them is cheap.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Options(Option<Arc<Vec<(&'static str, OptionValue)>>>);

/// The value of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptionValue {
    Integer(u64),
    Flag(bool),
    Word(&'static str),
}

impl OptionValue {
    /// Reads the text of a query parameter; `None` where `spec` does not allow it.
    pub fn read(spec: &OptionSpec, text: &str) -> Option<Self> {
        match spec.kind {
            OptionKind::Integer { least, .. } => {
                text.parse().ok().filter(|number| *number >= least).map(Self::Integer)
            }
            OptionKind::Flag => text.parse().ok().map(Self::Flag),
            OptionKind::Word(words) => words.iter().find(|word| **word == text).map(|word| Self::Word(word)),
        }
    }
}

/// Why what a caller chose is no option.
#[derive(Debug, Clone, PartialEq)]
pub enum OptionFault<'t> {
    /// No task has an option of that name.
    Unknown(&'t str),
    Twice(&'t str),
    /// The option does not take that value.
    Value {
        name: &'static str,
        value: &'t str,
        allowed: String,
    },
}

impl Options {
    /// Reads names and values as options of `tasks`; where two tasks have one of a name, it is for both.
    ///
    /// # Errors
    /// [`OptionFault`] for the first that is none.
    pub fn read<'t>(
        pairs: impl Iterator<Item = (&'t str, &'t str)>,
        tasks: impl Iterator<Item = &'static Descriptor> + Clone,
    ) -> Result<Self, OptionFault<'t>> {
        let mut options = Self::default();
        for (name, value) in pairs {
            let spec = tasks.clone().find_map(|task| task.option(name)).ok_or(OptionFault::Unknown(name))?;
            let wrong = || OptionFault::Value { name: spec.name, value, allowed: spec.allowed() };
            let read = OptionValue::read(spec, value).ok_or_else(wrong)?;
            if !options.insert(spec.name, read) {
                return Err(OptionFault::Twice(name));
            }
        }
        Ok(options)
    }

    /// Adds the value of an option; returns whether it had none before.
    pub fn insert(&mut self, name: &'static str, value: OptionValue) -> bool {
        if self.get(name).is_some() {
            return false;
        }
        Arc::make_mut(self.0.get_or_insert_default()).push((name, value));
        true
    }

    /// Returns whether the caller chose nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The value of an option.
    pub fn get(&self, name: &str) -> Option<OptionValue> {
        self.0.as_ref()?.iter().find(|(other, _)| *other == name).map(|(_, value)| *value)
    }

    /// The value of an option that takes whole numbers.
    pub fn integer(&self, name: &str) -> Option<u64> {
        match self.get(name)? {
            OptionValue::Integer(number) => Some(number),
            OptionValue::Flag(_) | OptionValue::Word(_) => None,
        }
    }

    /// The value of an option that is on or off.
    pub fn flag(&self, name: &str) -> Option<bool> {
        match self.get(name)? {
            OptionValue::Flag(flag) => Some(flag),
            OptionValue::Integer(_) | OptionValue::Word(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIDE: OptionSpec =
        OptionSpec { name: "side", kind: OptionKind::Integer { least: 1, unit: "pixels" }, about: "" };
    const POOLING: OptionSpec =
        OptionSpec { name: "pooling", kind: OptionKind::Word(&["mean", "first"]), about: "" };
    const RAW: OptionSpec = OptionSpec { name: "raw", kind: OptionKind::Flag, about: "" };

    #[test]
    fn only_values_of_the_options_kind_are_read() {
        assert_eq!(OptionValue::read(&SIDE, "320"), Some(OptionValue::Integer(320)));
        assert_eq!(OptionValue::read(&POOLING, "first"), Some(OptionValue::Word("first")));
        assert_eq!(OptionValue::read(&RAW, "true"), Some(OptionValue::Flag(true)));
        for (spec, wrong) in [(&SIDE, "0"), (&SIDE, "-1"), (&SIDE, "x"), (&POOLING, "max"), (&RAW, "1")] {
            assert_eq!(OptionValue::read(spec, wrong), None, "{wrong}");
            assert!(!spec.allowed().is_empty());
        }
    }

    #[test]
    fn an_option_is_given_once_and_read_back_by_its_kind() {
        let mut options = Options::default();
        assert!(options.is_empty());
        assert!(options.insert("side", OptionValue::Integer(640)));
        assert!(!options.insert("side", OptionValue::Integer(320)));
        assert!(options.insert("raw", OptionValue::Flag(true)));
        assert_eq!((options.integer("side"), options.flag("side")), (Some(640), None));
        assert_eq!((options.flag("raw"), options.integer("raw")), (Some(true), None));
        assert_eq!(options.get("pooling"), None);
    }
}
