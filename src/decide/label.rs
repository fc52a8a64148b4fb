//! Syntax of Kubernetes' labels, which names of namespaces, Services and ports follow too.

/// DNS-1123, as the API server's rule for the names of namespaces, and of Services since Kubernetes 1.34: a-z, 0-9 and -, no
/// - at an end, at most 63 characters.
pub fn is_dns_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A label's value that is not empty: letters, digits, `-`, `_` and `.`, a letter or digit at both ends, at most 63 characters.
pub fn is_label_value(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= 63 && text.chars().all(inner) && end(text.chars().next()) && end(text.chars().last())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_dns_1123_and_may_begin_with_a_digit() {
        let (longest, longer) = ("a".repeat(63), "a".repeat(64));
        for good in ["a", "web-1", "1web", "9", &longest] {
            assert!(is_dns_label(good), "{good:?}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "é", &longer] {
            assert!(!is_dns_label(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_labels_value_may_have_capitals_dots_and_underscores_inside() {
        let (longest, longer) = ("a".repeat(63), "a".repeat(64));
        for good in ["a", "Web_1.2-b", "9", &longest] {
            assert!(is_label_value(good), "{good:?}");
        }
        for bad in ["", "-a", "a-", "_a", "a.", "a b", "a/b", "é", &longer] {
            assert!(!is_label_value(bad), "{bad:?}");
        }
    }
}
