//! fjall's manifests, checked before fjall reads them.
//!
//! Each keyspace has a file `v<number>` that lists its tables, and a file `current` that names the newest of
//! these and carries its checksum. fjall (3.1.13, on lsm-tree 3.1.10) writes that checksum and does not look
//! at it: a rotten list is believed, with tables left out or ranked wrongly, and some rot ends the process (a
//! panic under a lock, and the destructor that finds the lock poisoned panics again, which nobody can catch).
//!
//! | part of `current` | bytes |
//! |---|---|
//! | number | u64, little-endian |
//! | checksum | xxh3-128 of the file `v<number>`, u128, little-endian |
//! | kind of checksum | 0 |

use std::fs;
use std::io;
use std::path::Path;

use crate::codec::Fields;

/// Bytes of `current`.
const CURRENT_BYTES: usize = 8 + 16 + 1;

/// Compares the newest manifest of every keyspace of a database with its checksum, changing nothing.
///
/// # Errors
/// One that does not fit, or a file that cannot be read.
pub(crate) fn check(database: &Path) -> io::Result<()> {
    let keyspaces = match fs::read_dir(database.join("keyspaces")) {
        Ok(keyspaces) => keyspaces,
        // A database that is about to be made.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for keyspace in keyspaces {
        check_keyspace(&keyspace?.path())?;
    }
    Ok(())
}

fn check_keyspace(keyspace: &Path) -> io::Result<()> {
    let current = match fs::read(keyspace.join("current")) {
        Ok(current) => current,
        // A crash while the keyspace was made; fjall removes what is there or says what it misses.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let damaged = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let name = keyspace.display();
    if current.len() != CURRENT_BYTES {
        let what = format!("{name}/current has {} bytes, not {CURRENT_BYTES}", current.len());
        return Err(damaged(what));
    }
    let mut fields = Fields(&current);
    let (number, checksum, kind) = (fields.u64(), fields.u128(), fields.u8());
    let file = format!("v{number}");
    let manifest = match fs::read(keyspace.join(&file)) {
        Ok(manifest) => manifest,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(damaged(format!("{name}/{file} is missing")));
        }
        Err(error) => return Err(error),
    };
    if kind != 0 || xxhash_rust::xxh3::xxh3_128(&manifest) != checksum {
        return Err(damaged(format!("the checksum of {name}/{file} does not fit")));
    }
    Ok(())
}
