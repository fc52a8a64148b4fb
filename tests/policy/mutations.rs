//! Whatever a hand or a disk does to a manifest, it is taken or answered; nothing panics, nothing hangs.

use kubervisor::api::{Context, Detectors, parse};
use proptest::{collection::vec, prelude::*, sample::select};

const ANY: Context = Context { detectors: Detectors::All, timing: None };
const GOOD: [&str; 3] = [
    include_str!("good/everything.yaml"),
    include_str!("good/client-of-2018.json"),
    include_str!("good/among-others.yaml"),
];
/// Pieces that mean something to YAML or to a field.
const PIECES: [&str; 18] = [
    "", "\n", "  ", "- ", ": ", "---\n", "&a ", "*a", "yes", "null", "{}", "[", "]", "\"", "-1", "1e999",
    ".nan", "\t#",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_spoilt_manifest_is_taken_or_answered_with_lines_of_the_file(
        text in select(&GOOD[..]),
        edits in vec((any::<prop::sample::Index>(), 0_usize..12, select(&PIECES[..])), 1..5),
    ) {
        let mut spoilt: Vec<char> = text.chars().collect();
        for (at, cut, piece) in edits {
            let start = at.index(spoilt.len());
            let end = (start + cut).min(spoilt.len());
            spoilt.splice(start..end, piece.chars());
        }
        let spoilt: String = spoilt.into_iter().collect();
        match parse("spoilt.yaml", &spoilt, ANY) {
            Ok(manifests) => for manifest in manifests {
                prop_assert_eq!(manifest.policy.breakers.len(), manifest.rules.len());
            },
            Err(problems) => {
                prop_assert!(!problems.list.is_empty());
                let lines = spoilt.lines().count() as u64 + 1;
                for problem in problems.list {
                    prop_assert!((1..=lines).contains(&problem.line), "{:?}", problem);
                    prop_assert!(!problem.what.is_empty() && !problem.write.is_empty(), "{:?}", problem);
                }
            }
        }
    }
}
