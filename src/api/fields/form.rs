//! What a single field's value may be, in terms that an OpenAPI schema has. Rules over several fields are in
//! `api/crd/rules.rs` and `api/validate/`.

/// The type and the bounds of a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Form {
    /// A map of the fields below it.
    Map,
    /// A list; its items are the field whose path ends in `[]`.
    List {
        /// Fewest items.
        least: u32,
        /// Most items.
        most: u32,
    },
    /// `true` or `false`.
    Flag,
    /// A text of this pattern; any text if that is empty.
    Text {
        /// A regular expression for the whole text.
        pattern: &'static str,
        /// Most characters.
        longest: u32,
    },
    /// One of these words.
    Words(&'static [&'static str]),
    /// A whole number within these bounds.
    Whole {
        /// The smallest value.
        least: u32,
        /// The largest value.
        most: u32,
    },
    /// A number within these bounds, which may be infinite.
    Number {
        /// The smallest value.
        least: f64,
        /// `least` itself is refused.
        above: bool,
        /// The largest value.
        most: f64,
    },
    /// The number of a port, or its name.
    Port,
    /// Any JSON value.
    Any,
}

impl Form {
    /// Whether the number is within the bounds; a form without numbers has none.
    pub fn admits(self, number: f64) -> bool {
        match self {
            Self::Whole { least, most } => (f64::from(least)..=f64::from(most)).contains(&number),
            Self::Number { least, above, most } => {
                (least..=most).contains(&number) && !(above && number <= least)
            }
            _ => true,
        }
    }

    /// An empty text means that the field was left out; an empty pointer is a value.
    pub fn empty_is_unset(self) -> bool {
        matches!(self, Self::Words(_))
            || matches!(self, Self::Text { pattern, .. } if pattern != POINTER_PATTERN)
    }

    /// The most items of a list, or characters of a text.
    pub fn most(self) -> usize {
        match self {
            Self::List { most, .. } | Self::Text { longest: most, .. } => most as usize,
            _ => usize::MAX,
        }
    }
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

/// Characters of a text that has no shorter limit of its own.
const LONGEST_TEXT: u32 = 4096;
pub(super) const TEXT: Form = text("");
pub(super) const COUNT: Form = whole(0, u32::MAX);
pub(super) const PERCENT: Form = whole(0, 100);
pub(super) const ANY_NUMBER: Form = number(f64::NEG_INFINITY, f64::INFINITY);
pub(super) const DIRECTION: Form = Form::Words(&["high", "low", "both"]);
pub(super) const LABEL: Form = Form::Text { pattern: "[a-z0-9]([-a-z0-9]*[a-z0-9])?", longest: 63 };
pub(super) const POINTER_PATTERN: &str = "(/([^~]|~[01])*)?";
/// `host:port` or a URL, each with an optional path and query; a host is a name, or an address of IPv4 or IPv6.
pub(super) const SERVICE_URL: &str = r"(([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}|https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?)([/?][!-~]*)?";
/// The same with an optional port, or a path alone.
pub(super) const HOST_PATH: &str =
    r"(https?://)?([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?([/?][!-~]*)?|/[!-~]*";
pub(super) const PATH: &str = "/[!-~]*";
pub(super) const HEADER_NAME: &str = "[!#$%&'*+.^_`|~0-9A-Za-z-]+";
pub(super) const PRINTABLE: &str = "[^\\x00-\\x1f\\x7f]*";
