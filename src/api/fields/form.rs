//! What a field's value may be, in terms that a schema can say. What takes more than one field is a rule
//! of its own, beside the schema.

/// What a value may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Form {
    /// A map; the fields below it say with what.
    Map,
    /// A list of so many items; its `[]` says of what.
    List {
        /// The fewest.
        least: u32,
        /// The most.
        most: u32,
    },
    /// `true` or `false`.
    Flag,
    /// A text of this pattern; any text if that is empty.
    Text {
        /// A regular expression for the whole text.
        pattern: &'static str,
        /// The most characters.
        longest: u32,
    },
    /// One of these words.
    Words(&'static [&'static str]),
    /// A whole number within these bounds.
    Whole {
        /// The least.
        least: u32,
        /// The most.
        most: u32,
    },
    /// A number within these bounds, which may be infinite.
    Number {
        /// The least.
        least: f64,
        /// `least` itself is too little.
        above: bool,
        /// The most.
        most: f64,
    },
    /// Any JSON value.
    Any,
}

pub(super) const fn list(least: u32, most: u32) -> Form {
    Form::List { least, most }
}

pub(super) const fn text(pattern: &'static str) -> Form {
    Form::Text { pattern, longest: LONGEST_TEXT }
}

pub(super) const fn whole(least: u32, most: u32) -> Form {
    Form::Whole { least, most }
}

pub(super) const fn number(least: f64, most: f64) -> Form {
    Form::Number { least, above: false, most }
}

pub(super) const fn above(least: f64, most: f64) -> Form {
    Form::Number { least, above: true, most }
}

/// The longest text of any other field; the checks of manifests have the same.
const LONGEST_TEXT: u32 = 4096;
pub(super) const TEXT: Form = text("");
pub(super) const COUNT: Form = whole(0, u32::MAX);
pub(super) const PERCENT: Form = whole(0, 100);
pub(super) const ANY_NUMBER: Form = number(f64::NEG_INFINITY, f64::INFINITY);
pub(super) const DIRECTION: Form = Form::Words(&["high", "low", "both"]);
pub(super) const LABEL: Form = Form::Text { pattern: "[a-z]([-a-z0-9]*[a-z0-9])?", longest: 63 };
pub(super) const POINTER_PATTERN: &str = "(/([^~]|~[01])*)?";
pub(super) const HOST_PORT: &str = "[A-Za-z0-9._-]+:[0-9]{1,5}|https?://[A-Za-z0-9._-]+(:[0-9]{1,5})?/?";
pub(super) const HOST_PATH: &str = "[A-Za-z0-9._-]+(:[0-9]{1,5})?(/[!-~]*)?";
