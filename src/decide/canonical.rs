//! Canonical JSON: one byte sequence per value, so that equal pods have equal bytes and reproducible digests.
//!
//! Members are sorted by code point, without white space; all outside printable ASCII is escaped as `\uXXXX`
//! (surrogate pairs above U+FFFF). Of repeated members the last counts. This equals Python 3's
//! `json.dumps(value, sort_keys=True, separators=(",", ":"))`, except that numbers keep their source text: rewriting
//! `1.10` or a 30-digit integer could change the value.
//!
//! serde_json validates the grammar; the walk here relies on that.

use std::borrow::Cow;

/// The most levels of nesting; the outermost array or object is level 1.
pub const MAX_DEPTH: usize = 32;

/// Why a text has no canonical form.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CanonicalError {
    /// Not UTF-8.
    #[error("the JSON is not UTF-8")]
    DecodeText(#[source] std::str::Utf8Error),
    /// Not JSON.
    #[error("this is not valid JSON")]
    ParseJson(#[source] serde_json::Error),
    /// Nested beyond [`MAX_DEPTH`].
    #[error("the JSON is nested deeper than {MAX_DEPTH} levels")]
    NestTooDeep,
    /// A string with an unpaired surrogate.
    #[error("a string of the JSON holds half of a surrogate pair")]
    DecodeString(#[source] serde_json::Error),
    /// A number beyond the range of a double, which most readers refuse or read as infinity.
    #[error("the number {0} is out of the range of a double")]
    NumberOutOfRange(String),
}

/// A JSON value whose numbers keep their source text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JsonNode<'a> {
    /// Source text of `null`, `true`, `false` or a number.
    Scalar(&'a str),
    /// A string, unescaped.
    Text(Cow<'a, str>),
    /// An array.
    List(Vec<JsonNode<'a>>),
    /// An object, sorted by name, with unique names.
    Object(Vec<(Cow<'a, str>, JsonNode<'a>)>),
    /// Source text of a number beyond a double, which is kept. Only from [`JsonNode::parse_lenient`].
    Beyond(&'a str),
    /// Source text of what is no JSON value: `NaN`, `Infinity`, `-Infinity`, or a string with half of a surrogate pair.
    /// Written as `null`. Only from [`JsonNode::parse_lenient`].
    Odd(&'a str),
}

impl<'a> JsonNode<'a> {
    /// Parses one JSON text.
    ///
    /// # Errors
    /// See [`CanonicalError`].
    pub fn parse(raw: &'a [u8]) -> Result<Self, CanonicalError> {
        let text = std::str::from_utf8(raw).map_err(CanonicalError::DecodeText)?;
        check_grammar(text)?;
        Walker { text, at: 0, lenient: false }.value(0)
    }

    /// Parses what common writers (Python's `json.dumps` among them) make of values that JSON has not: they become
    /// [`Self::Beyond`] and [`Self::Odd`].
    ///
    /// # Errors
    /// See [`CanonicalError`].
    pub fn parse_lenient(raw: &'a [u8]) -> Result<Self, CanonicalError> {
        let text = std::str::from_utf8(raw).map_err(CanonicalError::DecodeText)?;
        check_grammar(&with_zeros(text))?;
        Walker { text, at: 0, lenient: true }.value(0)
    }

    /// The first value that JSON has not, else the first number beyond a double: its JSON pointer and source text.
    pub fn first_odd(&self) -> Option<(String, &'a str)> {
        self.find(&|node| matches!(node, Self::Odd(_)))
            .or_else(|| self.find(&|node| matches!(node, Self::Beyond(_))))
    }

    /// Whether it holds a value that JSON has not.
    pub fn is_odd(&self) -> bool {
        self.find(&|node| matches!(node, Self::Odd(_))).is_some()
    }

    fn find(&self, wanted: &dyn Fn(&Self) -> bool) -> Option<(String, &'a str)> {
        let below = |step: String, node: &Self| {
            node.find(wanted).map(|(place, text)| (format!("/{step}{place}"), text))
        };
        match self {
            Self::Beyond(text) | Self::Odd(text) if wanted(self) => Some((String::new(), text)),
            Self::List(items) => items.iter().enumerate().find_map(|(at, item)| below(at.to_string(), item)),
            Self::Object(members) => members
                .iter()
                .find_map(|(name, value)| below(name.replace('~', "~0").replace('/', "~1"), value)),
            _ => None,
        }
    }

    /// Appends the canonical form to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Scalar(text) | Self::Beyond(text) => out.extend_from_slice(text.as_bytes()),
            Self::Odd(_) => out.extend_from_slice(b"null"),
            Self::Text(text) => write_text(text, out),
            Self::List(items) => {
                out.push(b'[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    item.write(out);
                }
                out.push(b']');
            }
            Self::Object(members) => {
                write_object(members.iter().map(|(name, value)| (&**name, value)), out);
            }
        }
    }
}

/// Appends an object; `members` must be sorted by name.
pub fn write_object<'n, 'a: 'n>(
    members: impl Iterator<Item = (&'n str, &'n JsonNode<'a>)>,
    out: &mut Vec<u8>,
) {
    out.push(b'{');
    for (index, (name, value)) in members.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_text(name, out);
        out.push(b':');
        value.write(out);
    }
    out.push(b'}');
}

/// The canonical form of one JSON text.
///
/// # Errors
/// See [`CanonicalError`].
pub fn canonical(raw: &[u8]) -> Result<Vec<u8>, CanonicalError> {
    let node = JsonNode::parse(raw)?;
    let mut out = Vec::with_capacity(raw.len());
    node.write(&mut out);
    Ok(out)
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for char in text.chars() {
        match char {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            '\u{8}' => out.extend_from_slice(b"\\b"),
            '\u{c}' => out.extend_from_slice(b"\\f"),
            ' '..='~' => out.push(char as u8),
            _ => char.encode_utf16(&mut [0; 2]).iter().for_each(|unit| write_unit(*unit, out)),
        }
    }
    out.push(b'"');
}

fn write_unit(unit: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(b"\\u");
    for shift in [12, 8, 4, 0] {
        out.push(b"0123456789abcdef"[usize::from(unit >> shift & 0xf)]);
    }
}

fn check_grammar(text: &str) -> Result<(), CanonicalError> {
    serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(CanonicalError::ParseJson)?;
    Ok(())
}

/// `text` with a zero, padded to the same length, for each `NaN` and `Infinity` outside strings.
fn with_zeros(text: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    let (mut quoted, mut escaped) = (false, false);
    while let Some(next) = rest.chars().next() {
        let word = ["NaN", "Infinity"].into_iter().find(|word| !quoted && rest.starts_with(word));
        let length = word.map_or(next.len_utf8(), str::len);
        match word {
            Some(_) => out.extend(std::iter::once('0').chain(std::iter::repeat_n(' ', length - 1))),
            None => out.push(next),
        }
        quoted ^= next == '"' && !escaped;
        escaped = quoted && next == '\\' && !escaped;
        rest = &rest[length..];
    }
    out
}

/// Walks text that serde_json has accepted; only depth, surrogates and number ranges can be invalid.
struct Walker<'a> {
    text: &'a str,
    at: usize,
    /// Whether odd values become nodes instead of errors.
    lenient: bool,
}

impl<'a> Walker<'a> {
    fn value(&mut self, depth: usize) -> Result<JsonNode<'a>, CanonicalError> {
        match self.peek() {
            b'{' | b'[' if depth == MAX_DEPTH => Err(CanonicalError::NestTooDeep),
            b'{' => self.object(depth + 1),
            b'[' => self.list(depth + 1),
            b'"' => {
                let start = self.at;
                match self.string() {
                    Err(_) if self.lenient => Ok(JsonNode::Odd(&self.text[start..self.at])),
                    text => text.map(JsonNode::Text),
                }
            }
            _ => self.scalar(),
        }
    }

    fn object(&mut self, depth: usize) -> Result<JsonNode<'a>, CanonicalError> {
        let mut members = Vec::new();
        self.at += 1;
        while self.peek() != b'}' {
            self.skip(b',');
            self.peek();
            let start = self.at;
            let name = self.string();
            let quoted = &self.text[start..self.at];
            self.peek();
            self.skip(b':');
            let value = self.value(depth)?;
            members.push(match name {
                Err(_) if self.lenient => (Cow::Borrowed("\u{fffd}"), JsonNode::Odd(quoted)),
                name => (name?, value),
            });
        }
        self.at += 1;
        Ok(JsonNode::Object(last_of_each(members)))
    }

    fn list(&mut self, depth: usize) -> Result<JsonNode<'a>, CanonicalError> {
        let mut items = Vec::new();
        self.at += 1;
        while self.peek() != b']' {
            self.skip(b',');
            items.push(self.value(depth)?);
        }
        self.at += 1;
        Ok(JsonNode::List(items))
    }

    fn string(&mut self) -> Result<Cow<'a, str>, CanonicalError> {
        let quoted = self.take_string();
        if quoted.contains('\\') {
            let text = serde_json::from_str(quoted).map_err(CanonicalError::DecodeString)?;
            return Ok(Cow::Owned(text));
        }
        Ok(Cow::Borrowed(&quoted[1..quoted.len() - 1]))
    }

    /// The string at the current position, with its quotes.
    fn take_string(&mut self) -> &'a str {
        let start = self.at;
        let mut escaped = false;
        self.at += 1;
        for byte in &self.text.as_bytes()[start + 1..] {
            self.at += 1;
            match byte {
                b'"' if !escaped => break,
                b'\\' => escaped = !escaped,
                _ => escaped = false,
            }
        }
        &self.text[start..self.at]
    }

    fn scalar(&mut self) -> Result<JsonNode<'a>, CanonicalError> {
        let rest = &self.text[self.at..];
        let end = rest.find([',', ']', '}', ' ', '\t', '\n', '\r']).unwrap_or(rest.len());
        let text = &rest[..end];
        self.at += end;
        let finite = || text.parse::<f64>().is_ok_and(f64::is_finite);
        if matches!(text, "null" | "true" | "false") || finite() {
            return Ok(JsonNode::Scalar(text));
        }
        match text {
            "NaN" | "Infinity" | "-Infinity" if self.lenient => Ok(JsonNode::Odd(text)),
            _ if self.lenient && !text.contains(['N', 'I']) => Ok(JsonNode::Beyond(text)),
            _ => Err(CanonicalError::NumberOutOfRange(text.chars().take(32).collect())),
        }
    }

    /// The next byte that is not white space; `}` at the end, which ends every loop.
    fn peek(&mut self) -> u8 {
        let rest = &self.text.as_bytes()[self.at..];
        self.at += rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        self.text.as_bytes().get(self.at).copied().unwrap_or(b'}')
    }

    fn skip(&mut self, byte: u8) {
        if self.text.as_bytes().get(self.at) == Some(&byte) {
            self.at += 1;
        }
    }
}

/// Sorts by name and keeps the last member of each name.
fn last_of_each<'a>(mut members: Vec<(Cow<'a, str>, JsonNode<'a>)>) -> Vec<(Cow<'a, str>, JsonNode<'a>)> {
    members.reverse();
    members.sort_by(|(a, _), (b, _)| a.cmp(b));
    members.dedup_by(|(later, _), (earlier, _)| later == earlier);
    members
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical_text(raw: &str) -> String {
        String::from_utf8(canonical(raw.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn members_are_sorted_without_white_space() {
        assert_eq!(
            canonical_text(" { \"b\" : [ 1 , { } , [ ] ] ,\n\t\"a\" : null } "),
            r#"{"a":null,"b":[1,{},[]]}"#
        );
    }

    #[test]
    fn numbers_keep_their_source_text() {
        for number in ["1.10", "-0", "1E+2", "123456789012345678901234567890", "0.1e-7"] {
            assert_eq!(canonical_text(number), number);
        }
    }

    #[test]
    fn everything_outside_printable_ascii_is_escaped() {
        assert_eq!(
            canonical_text("\"é\u{1F600}\u{7f}\\u0001\\/\\n\\\"\\\\\""),
            r#""\u00e9\ud83d\ude00\u007f\u0001/\n\"\\""#
        );
    }

    #[test]
    fn of_a_repeated_member_the_last_one_counts() {
        assert_eq!(canonical_text(r#"{"a":1,"b":2,"a":3,"\u0061":4}"#), r#"{"a":4,"b":2}"#);
    }

    #[test]
    fn thirty_two_levels_are_read_and_one_more_is_refused() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert_eq!(canonical_text(&nested(32)), nested(32));
        let refused = canonical(nested(33).as_bytes());
        assert!(matches!(refused, Err(CanonicalError::NestTooDeep)));
        let bomb = canonical(nested(500_000).as_bytes());
        assert!(matches!(bomb, Err(CanonicalError::NestTooDeep)));
    }

    #[test]
    fn odd_values_are_found_with_their_place_and_numbers_beyond_a_double_keep_their_text() {
        for (raw, place, text, written) in [
            (r#"{"a":[1,NaN]}"#, "/a/1", "NaN", r#"{"a":[1,null]}"#),
            (r#"{"a/b":-Infinity,"c":"NaN"}"#, "/a~1b", "-Infinity", r#"{"a/b":null,"c":"NaN"}"#),
            (r#"["\"NaN", Infinity]"#, "/1", "Infinity", r#"["\"NaN",null]"#),
            (r#"{"a":"caf\udce9"}"#, "/a", r#""caf\udce9""#, r#"{"a":null}"#),
            (r#"{"\udce9":1}"#, "/\u{fffd}", r#""\udce9""#, r#"{"\ufffd":null}"#),
            ("[1e999]", "/0", "1e999", "[1e999]"),
        ] {
            assert!(canonical(raw.as_bytes()).is_err(), "{raw}");
            let node = JsonNode::parse_lenient(raw.as_bytes()).unwrap();
            assert_eq!(node.first_odd(), Some((place.to_owned(), text)), "{raw}");
            let mut out = Vec::new();
            node.write(&mut out);
            assert_eq!(String::from_utf8(out).unwrap(), written, "{raw}");
        }
        for raw in ["-NaN", "1NaN", "NaNNaN", "nan", "{NaN:1}", "[1 NaN]", "\"NaN", "Infinity1"] {
            assert!(JsonNode::parse_lenient(raw.as_bytes()).is_err(), "{raw}");
        }
    }

    #[test]
    fn each_kind_of_bad_text_has_its_own_error() {
        assert!(matches!(canonical(b"\"\xff\""), Err(CanonicalError::DecodeText(_))));
        for text in ["", "{", "{\"a\":1,}", "[1 2]", "nul", "01", "NaN", "\"a\nb\"", "{} {}"] {
            let refused = canonical(text.as_bytes());
            assert!(matches!(refused, Err(CanonicalError::ParseJson(_))), "{text}");
        }
        assert!(matches!(canonical(br#""\ud800x""#), Err(CanonicalError::DecodeString(_))));
        assert!(matches!(canonical(b"[1e999]"), Err(CanonicalError::NumberOutOfRange { .. })));
    }
}
