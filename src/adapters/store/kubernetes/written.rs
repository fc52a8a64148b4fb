//! What a leader knows of the objects that it has written.

use std::collections::{BTreeMap, BTreeSet};

use super::records::{ChunkChanges, LargeRecord, Layout, Placement};
use crate::decide::key::Key;

/// The objects of one term as this leader has left them.
pub(super) struct Written {
    pub(super) term: u64,
    /// The version of each object by its key. An absent one is read before it is written.
    pub(super) versions: BTreeMap<String, String>,
    pub(super) layout: Layout,
    pub(super) placement: Placement,
    /// Pods that a chunk may hold although a write of it failed.
    pub(super) unsure: BTreeMap<usize, BTreeSet<Key>>,
    /// Versions of large records that the head may name no more, or never has.
    pub(super) unused: Vec<(String, LargeRecord)>,
    /// Part of the version of the last large record.
    pub(super) serial: u64,
}

impl Written {
    /// The removals of what failed writes may have left: returned for pods that are gone, added to `moved` for pods that
    /// are in another chunk now.
    pub(super) fn leftovers(&mut self, moved: &mut ChunkChanges) -> ChunkChanges {
        let mut orphans = ChunkChanges::new();
        for (chunk, pods) in &mut self.unsure {
            pods.retain(|pod| match self.placement.chunk_of(*pod) {
                Some(current) if current == *chunk => false,
                current => {
                    let stage = if current.is_some() { &mut *moved } else { &mut orphans };
                    stage.entry(*chunk).or_default().insert(*pod, None);
                    true
                }
            });
        }
        orphans
    }
}
