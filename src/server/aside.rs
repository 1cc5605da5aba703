//! How much lies in `aside/`, where the storage puts what it could not use.
//!
//! Nothing there is ever deleted by the server: it may be the only copy of something. So the folder has no
//! bound, and an operator who never looks would lose the disk to it; the start says when it is time.

use std::path::Path;

/// From so many bytes on the start says so.
pub(super) const TOLD_FROM_BYTES: u64 = 1 << 30;

/// Files looked at: a folder with more is told of in any case, and no start takes long for counting.
const FILES_MAX: usize = 100_000;

/// Bytes of all files in `aside/` of this data folder; 0 when it is not there or cannot be read.
pub(super) fn bytes(data_dir: &Path) -> u64 {
    let mut folders = vec![data_dir.join("aside")];
    let (mut bytes, mut files) = (0u64, 0);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            files += 1;
            if files > FILES_MAX {
                return bytes.max(TOLD_FROM_BYTES);
            }
            // Of a symbolic link this is the link: what it points to is not ours.
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => folders.push(entry.path()),
                Ok(metadata) => bytes = bytes.saturating_add(metadata.len()),
                Err(_gone) => {}
            }
        }
    }
    bytes
}

/// The sentence for the log.
pub(super) fn sentence(bytes: u64) -> String {
    format!(
        "{} MiB lie in aside/ of the data folder: what could not be used was kept there and is not needed by this node; \
         look at it and delete it when the node is well",
        bytes >> 20
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_counted_in_every_depth_and_nothing_elsewhere() {
        let dir = tempfile::tempdir().expect("a folder");
        assert_eq!(bytes(dir.path()), 0);
        let deep = dir.path().join("aside/000001-wal/journals");
        std::fs::create_dir_all(&deep).expect("folders");
        std::fs::write(deep.join("1"), [0; 300]).expect("a file");
        std::fs::write(dir.path().join("aside/000002-cut"), [0; 40]).expect("a file");
        std::fs::write(dir.path().join("FORMAT"), [0; 7]).expect("a file");
        assert_eq!(bytes(dir.path()), 340);
        assert!(sentence(5 << 20).starts_with("5 MiB lie in aside/"));
    }
}
