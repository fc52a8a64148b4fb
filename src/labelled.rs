//! Enums whose variants have a label each, such as a metric's: one list has the variants, their order and their labels.

/// `labelled! { /// Doc. pub enum Name, label { /// Doc. Variant = "label", } }`: a plain enum with `Name::ALL` and a
/// method of the given name, which returns the label.
macro_rules! labelled {
    ($(#[$doc:meta])* $reach:vis enum $name:ident, $label:ident {
        $($(#[$about:meta])* $variant:ident = $text:literal,)+
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        $reach enum $name {
            $($(#[$about])* $variant,)+
        }

        #[allow(dead_code, reason = "not every enum is walked through")]
        impl $name {
            /// All of them, in order.
            $reach const ALL: [Self; [$($text),+].len()] = [$(Self::$variant),+];

            /// The label.
            $reach const fn $label(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }
    };
}
