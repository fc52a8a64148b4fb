//! The endpoints file as a client reads it: again whenever inode or mtime have changed.

use std::{collections::BTreeSet, net::SocketAddrV4, os::unix::fs::MetadataExt, path::PathBuf};

/// The file and the addresses that it last had.
#[derive(Debug)]
pub(super) struct Listing {
    path: PathBuf,
    stamp: Option<(u64, i64, i64)>,
    addresses: BTreeSet<SocketAddrV4>,
}

impl Listing {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, stamp: None, addresses: BTreeSet::new() }
    }

    /// Reads the file again if it has changed; true when it has other addresses than before.
    pub(super) fn refresh(&mut self) -> bool {
        let Ok(meta) = std::fs::metadata(&self.path) else { return false };
        let stamp = Some((meta.ino(), meta.mtime(), meta.mtime_nsec()));
        if stamp == self.stamp {
            return false;
        }
        let Ok(text) = std::fs::read_to_string(&self.path) else { return false };
        self.stamp = stamp;
        let addresses = text.lines().filter_map(|line| line.trim().parse().ok()).collect();
        let differs = addresses != self.addresses;
        self.addresses = addresses;
        differs
    }

    pub(super) fn addresses(&self) -> &BTreeSet<SocketAddrV4> {
        &self.addresses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_is_read_again_and_a_missing_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("endpoints");
        let mut listing = Listing::new(path.clone());
        assert!(!listing.refresh());
        std::fs::write(&path, "127.0.0.1:80\n127.0.0.2:80\n").unwrap();
        assert!(listing.refresh());
        assert_eq!(listing.addresses().len(), 2);
        assert!(!listing.refresh());
        let fresh = folder.path().join("fresh");
        std::fs::write(&fresh, "127.0.0.2:80\n").unwrap();
        std::fs::rename(&fresh, &path).unwrap();
        assert!(listing.refresh());
        std::fs::remove_file(&path).unwrap();
        assert!(!listing.refresh());
        assert_eq!(listing.addresses().len(), 1);
    }
}
