//! The redb file: tables, term, and the translation of its errors into [`StoreError`].

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, backends::FileBackend};

use crate::adapters::store::{
    RecordKey, Records, StoreError, Term,
    layout::{self, Writes},
};

const RECORDS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("records");
const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");
const LAYOUT_KEY: &str = "layout";
const TERM_KEY: &str = "term";

/// The layout that this version reads and writes.
const LAYOUT: u64 = 1;

/// Redb's page cache.
const CACHE_BYTES: usize = 4 << 20;

/// An open file, for one prefix.
pub(super) struct File {
    path: PathBuf,
    prefix: String,
    /// `None` after a failed request: the next one opens the file again, which runs redb's recovery.
    database: Option<Database>,
}

impl File {
    /// Opens `path`; creates it (mode 0600) and missing directories (0700).
    pub(super) fn open(path: &Path, prefix: &str) -> Result<Self, StoreError> {
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(|error| {
                refused(path, &format!("its directory cannot be made: {error}"), error.kind())
            })?;
        }
        let database = open_database(path)?;
        Ok(Self { path: path.to_owned(), prefix: prefix.to_owned(), database: Some(database) })
    }

    /// Raises the stored term by one and returns it.
    pub(super) fn raise_term(&mut self) -> Result<Term, StoreError> {
        let term = self.attempt(|database, _| {
            let transaction = database.begin_write()?;
            let term = {
                transaction.open_table(RECORDS)?;
                let mut meta = transaction.open_table(META)?;
                let layout = meta.get(LAYOUT_KEY)?.map(|value| value.value());
                if layout.is_some_and(|layout| layout != LAYOUT) {
                    return Ok(None);
                }
                meta.insert(LAYOUT_KEY, LAYOUT)?;
                let term = meta.get(TERM_KEY)?.map_or(0, |value| value.value()) + 1;
                meta.insert(TERM_KEY, term)?;
                term
            };
            transaction.commit()?;
            Ok(Some(Term(term)))
        })?;
        term.ok_or_else(|| {
            let file = self.path.display();
            StoreError::Unusable(format!(
                "{file} was written by a newer version; run that one, or name another file"
            ))
        })
    }

    /// All records of the prefix.
    pub(super) fn load(&mut self) -> Result<Records, StoreError> {
        let stored = self.attempt(|database, prefix| {
            let table = database.begin_read()?.open_table(RECORDS)?;
            let mut stored = Vec::new();
            for entry in table.range(prefix..)? {
                let (name, value) = entry?;
                let Some(name) = name.value().strip_prefix(prefix).map(str::to_owned) else { break };
                stored.push((name, Bytes::copy_from_slice(value.value())));
            }
            Ok(stored)
        })?;
        let mut records = Records::new();
        for (name, value) in stored {
            if let Some(record) = layout::record(&name)? {
                records.insert(record, value);
            }
        }
        Ok(records)
    }

    /// One record's value.
    pub(super) fn read(&mut self, record: RecordKey) -> Result<Option<Bytes>, StoreError> {
        self.attempt(|database, prefix| {
            let table = database.begin_read()?.open_table(RECORDS)?;
            let value = table.get(format!("{prefix}{record}").as_str())?;
            Ok(value.map(|value| Bytes::copy_from_slice(value.value())))
        })
    }

    /// Carries out `writes` in one durable transaction.
    pub(super) fn write<'a>(&mut self, writes: impl Iterator<Item = &'a Writes>) -> Result<(), StoreError> {
        self.attempt(|database, prefix| {
            let transaction = database.begin_write()?;
            {
                let mut table = transaction.open_table(RECORDS)?;
                for (record, value) in writes.flatten() {
                    let name = format!("{prefix}{record}");
                    match value {
                        Some(value) => table.insert(name.as_str(), value.as_ref())?,
                        None => table.remove(name.as_str())?,
                    };
                }
            }
            transaction.commit()?;
            Ok(())
        })
    }

    fn attempt<T>(
        &mut self,
        work: impl FnOnce(&Database, &str) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let database = match self.database.take() {
            Some(database) => database,
            None => open_database(&self.path)?,
        };
        let done = work(&database, &self.prefix).map_err(|error| explain(&self.path, error))?;
        self.database = Some(database);
        Ok(done)
    }
}

fn open_database(path: &Path) -> Result<Database, StoreError> {
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|error| refused(path, &error.to_string(), error.kind()))?;
    let backend = FileBackend::new(file).map_err(|error| explain(path, error.into()))?;
    redb::Builder::new()
        .set_cache_size(CACHE_BYTES)
        .set_check_integrity_on_open(true)
        .create_with_backend(backend)
        .map_err(|error| explain(path, error.into()))
}

fn explain(path: &Path, error: redb::Error) -> StoreError {
    let file = path.display();
    match error {
        redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => {
            StoreError::Unusable(format!(
                "{file} is in use by another process; stop that one, or name another file with --store embedded:PATH"
            ))
        }
        redb::Error::UpgradeRequired(version) => {
            corrupt(path, &format!("it has the old file format {version}"))
        }
        redb::Error::Corrupted(what) => corrupt(path, &what),
        redb::Error::Io(error) => refused(path, &error.to_string(), error.kind()),
        other => StoreError::Unavailable(format!("{file}: {other}")),
    }
}

/// The error of a file that is damaged or no store.
pub(super) fn corrupt(path: &Path, what: &str) -> StoreError {
    let file = path.display();
    StoreError::Unusable(format!(
        "{file} is corrupt or no store of ours ({what}); restore it from a backup, or move it away to start \
             with an empty store (sequence numbers, STATE and the ledger are lost then)"
    ))
}

fn refused(path: &Path, what: &str, kind: io::ErrorKind) -> StoreError {
    let file = path.display();
    match kind {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            StoreError::NoSpace(format!("{file}: {what}; free space on its file system"))
        }
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => corrupt(path, what),
        io::ErrorKind::PermissionDenied
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::IsADirectory
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::AlreadyExists
        | io::ErrorKind::NotFound => StoreError::Unusable(format!(
            "{file}: {what}; make it writable for this user, or name another file with --store embedded:PATH"
        )),
        _ => StoreError::Unavailable(format!("{file}: {what}")),
    }
}
