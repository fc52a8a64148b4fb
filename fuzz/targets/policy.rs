//! Whatever a policy file holds: it is a policy, or every mistake in it has a line and an advice.
#![no_main]

use kubervisor_fuzz::api::{Context, Detectors, parse};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match parse("policy.yaml", text, Context { detectors: Detectors::All, timing: None, sources: &[] }) {
        Ok(manifests) => {
            for manifest in manifests {
                assert_eq!(manifest.policy.breakers.len(), manifest.rules.len());
            }
        }
        Err(problems) => {
            assert!(!problems.list.is_empty());
            assert!(problems.list.iter().all(|problem| problem.line > 0 && !problem.write.is_empty()));
        }
    }
});
