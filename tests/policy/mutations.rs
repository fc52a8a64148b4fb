//! Any mutation of a manifest is accepted or rejected with messages; no panic, no hang.

use kubervisor::api::{Context, Detectors, parse};
use proptest::{collection::vec, prelude::*, sample::select};

const ANY: Context = Context { detectors: Detectors::All, timing: None, sources: &[] };
const GOOD: [&str; 3] = [
    include_str!("good/everything.yaml"),
    include_str!("good/client-of-2018.json"),
    include_str!("good/among-others.yaml"),
];
/// Texts with a meaning in YAML or for a field.
const PIECES: [&str; 18] = [
    "", "\n", "  ", "- ", ": ", "---\n", "&a ", "*a", "yes", "null", "{}", "[", "]", "\"", "-1", "1e999",
    ".nan", "\t#",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_mutated_manifest_is_accepted_or_rejected_with_lines_of_the_file(
        text in select(&GOOD[..]),
        edits in vec((any::<prop::sample::Index>(), 0_usize..12, select(&PIECES[..])), 1..5),
    ) {
        let mut mutated: Vec<char> = text.chars().collect();
        for (at, cut, piece) in edits {
            let start = at.index(mutated.len());
            let end = (start + cut).min(mutated.len());
            mutated.splice(start..end, piece.chars());
        }
        let mutated: String = mutated.into_iter().collect();
        match parse("mutated.yaml", &mutated, ANY) {
            Ok(manifests) => for manifest in manifests {
                prop_assert_eq!(manifest.policy.breakers.len(), manifest.rules.len());
            },
            Err(problems) => {
                prop_assert!(!problems.list.is_empty());
                let lines = mutated.lines().count() as u64 + 1;
                for problem in problems.list {
                    prop_assert!((1..=lines).contains(&problem.line), "{:?}", problem);
                    prop_assert!(!problem.what.is_empty() && !problem.write.is_empty(), "{:?}", problem);
                }
            }
        }
    }
}
