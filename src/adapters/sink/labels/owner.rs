//! The owner of a resource in its status: the replica that works on it, and the generation of its ownership.
//!
//! A new owner raises the generation with its first write. The compare-and-swap of the status then refuses the next write
//! of the one before, which reads the status again, finds the generation and stops.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::adapters::sink::SinkError;

/// The member of the status.
const OWNER: &str = "owner";

/// Members of the status that are no part of the report.
pub const BESIDE_THE_REPORT: [&str; 2] = ["ledger", OWNER];

/// As stored in `status.owner`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct StoredOwner {
    /// Id of the replica.
    member: String,
    /// Rises with each owner.
    generation: u64,
}

/// One replica's claim to a resource.
#[derive(Debug, Default)]
pub struct OwnerClaim {
    /// `None`: this process shares the work with nobody and claims nothing.
    member: Option<String>,
    /// Ours, from the first read on.
    generation: Option<u64>,
    /// It is stored, or was sent to an API server whose definition prunes it.
    stored: bool,
}

impl OwnerClaim {
    /// A claim of this member.
    pub fn of(member: Option<String>) -> Self {
        Self { member, ..Self::default() }
    }

    /// Compares the claim with the status that was read.
    ///
    /// # Errors
    /// [`SinkError::Superseded`] when another replica has claimed the resource since.
    pub fn check(&mut self, status: Option<&Value>) -> Result<(), SinkError> {
        let Some(member) = &self.member else { return Ok(()) };
        let found = status.and_then(|status| status.get(OWNER)).cloned();
        // What a person has made unreadable counts as unowned.
        let found: StoredOwner =
            found.and_then(|owner| serde_json::from_value(owner).ok()).unwrap_or_default();
        let ours = *self.generation.get_or_insert(found.generation + 1);
        if found.generation > ours || (found.generation == ours && found.member != *member) {
            return Err(SinkError::Superseded { owner: found.member, generation: found.generation });
        }
        self.stored |= found.generation == ours;
        Ok(())
    }

    /// The status was written. An older definition prunes the claim; it is not repeated for that.
    pub fn written(&mut self) {
        self.stored = true;
    }

    /// Whether the status still lacks the claim.
    pub fn is_due(&self) -> bool {
        self.member.is_some() && !self.stored
    }

    /// Puts the claim into a status that is about to be written.
    pub fn write(&self, status: &mut Value) {
        if let (Some(member), Some(generation)) = (&self.member, self.generation) {
            let owner = StoredOwner { member: member.clone(), generation };
            status[OWNER] = serde_json::to_value(owner).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_new_owner_raises_the_generation_and_the_old_one_is_superseded() {
        let mut status = json!({});
        let mut first = OwnerClaim::of(Some("a".to_owned()));
        first.check(Some(&status)).unwrap();
        assert!(first.is_due());
        first.write(&mut status);
        first.written();
        assert_eq!(status, json!({"owner": {"member": "a", "generation": 1}}));
        first.check(Some(&status)).unwrap();
        assert!(!first.is_due());
        let mut second = OwnerClaim::of(Some("b".to_owned()));
        second.check(Some(&status)).unwrap();
        second.write(&mut status);
        let error = first.check(Some(&status)).unwrap_err();
        assert!(error.leadership_lost() && error.to_string().contains("replica b"), "{error}");
        second.check(Some(&status)).unwrap();
    }

    #[test]
    fn of_two_that_claim_at_a_time_the_one_that_is_not_stored_stops() {
        let mut claims = ["a", "b"].map(|member| OwnerClaim::of(Some(member.to_owned())));
        claims.iter_mut().for_each(|claim| claim.check(None).unwrap());
        let mut status = json!({});
        claims[0].write(&mut status);
        claims[0].check(Some(&status)).unwrap();
        claims[1].check(Some(&status)).unwrap_err();
    }

    #[test]
    fn without_others_nothing_is_claimed_and_an_edited_owner_is_none() {
        let mut alone = OwnerClaim::of(None);
        let mut status = json!({"owner": {"member": "b", "generation": 9}});
        alone.check(Some(&status)).unwrap();
        alone.write(&mut status);
        assert!(!alone.is_due());
        assert_eq!(status["owner"]["member"], "b");
        let mut claim = OwnerClaim::of(Some("a".to_owned()));
        claim.check(Some(&json!({"owner": "nonsense"}))).unwrap();
        assert!(claim.is_due());
    }
}
