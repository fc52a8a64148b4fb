//! Names and labels of the objects of one prefix.
//!
//! A key may have any character and length. Its object is named by a readable form and a hash of the whole key, so that
//! two keys never share an object; the key itself is in an annotation. Labels hold fixed or hashed values only.

use std::collections::BTreeMap;

use md5::{Digest as _, Md5};

/// The annotation with the key that the name was made from.
pub(super) const ORIGINAL_KEY: &str = "kubervisor.k8s.io/original-key";
/// The annotation with the leader's term.
pub(super) const TERM: &str = "kubervisor.k8s.io/term";
/// The annotation with the schema of the object.
pub(super) const SCHEMA: &str = "kubervisor.k8s.io/schema";
/// The annotation with a member's record.
pub(super) const MEMBER: &str = "kubervisor.k8s.io/member";

const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The label with the hash of the prefix.
const CLUSTER: &str = "kubervisor.k8s.io/cluster";
/// The label that tells what the object is.
const ROLE: &str = "kubervisor.k8s.io/role";

/// Characters of a key that its name shows.
const SHOWN: usize = 30;

labelled! {
    /// What an object is.
    pub(super) enum ObjectRole, label {
        /// The Lease of the leader.
        Leader = "leader",
        /// The Lease of a member.
        Member = "member",
        /// The ConfigMap with the small records, and the list of the others.
        Head = "head",
        /// A ConfigMap with pods, or with a part of a large record.
        Chunk = "chunk",
    }
}

/// The name of the object with this key: `kubervisor-<readable>-<16 hex digits>`.
pub(super) fn object_name(key: &str) -> String {
    let mut readable = String::new();
    for char in key.chars() {
        let char = char.to_ascii_lowercase();
        let plain = char.is_ascii_lowercase() || char.is_ascii_digit();
        if plain {
            readable.push(char);
        } else if !readable.is_empty() && !readable.ends_with('-') {
            readable.push('-');
        }
        if readable.len() == SHOWN {
            break;
        }
    }
    format!("kubervisor-{}-{}", readable.trim_end_matches('-'), hash(key)).replace("--", "-")
}

/// The labels of an object of the prefix.
pub(super) fn labels(prefix: &str, role: ObjectRole) -> BTreeMap<String, String> {
    let labels = [(MANAGED_BY, "kubervisor"), (CLUSTER, &hash(prefix)), (ROLE, role.label())];
    labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// The selector of all objects of the prefix; with `role` of those only.
pub(super) fn selector(prefix: &str, role: Option<ObjectRole>) -> String {
    let cluster = format!("{MANAGED_BY}=kubervisor,{CLUSTER}={}", hash(prefix));
    role.map_or_else(|| cluster.clone(), |role| format!("{cluster},{ROLE}={}", role.label()))
}

/// 64 bits of the MD5, in hexadecimal.
fn hash(text: &str) -> String {
    Md5::digest(text.as_bytes())[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_valid(name: &str) -> bool {
        let plain = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '-';
        name.len() <= 63 && name.chars().all(plain) && !name.starts_with('-') && !name.ends_with('-')
    }

    #[test]
    fn any_key_makes_a_valid_name() {
        let long = "x".repeat(300);
        for key in
            ["/kontrol/default/shop/", "", "---", "UPPER_case", "a/b", "über", "日本", &long, "a\u{0}b\n"]
        {
            let name = object_name(key);
            assert!(is_valid(&name), "{key:?} -> {name}");
        }
        assert!(object_name("/kontrol/default/Shop/").starts_with("kubervisor-kontrol-default-shop-"));
    }

    #[test]
    fn keys_that_a_plain_escape_would_merge_have_names_of_their_own() {
        let long = "x".repeat(300);
        let longer = format!("{long}y");
        for (one, other) in
            [("a/b", "a-b"), ("a_b", "a-b"), ("A", "a"), ("a--b", "a-b"), ("a", "a/"), (&*long, &*longer)]
        {
            assert_ne!(object_name(one), object_name(other), "{one} {other}");
            assert_ne!(labels(one, ObjectRole::Leader), labels(other, ObjectRole::Leader));
        }
    }
}
