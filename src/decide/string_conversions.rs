//! Conversions of types that are written as a text.

/// What `#[serde(try_from, into)]` needs of a type that is written as a text.
macro_rules! string_conversions {
    ($($kind:ty: $error:ty),*) => {$(
        impl TryFrom<String> for $kind {
            type Error = $error;

            fn try_from(text: String) -> Result<Self, $error> {
                text.parse()
            }
        }

        impl From<$kind> for String {
            fn from(value: $kind) -> Self {
                value.to_string()
            }
        }
    )*};
}
