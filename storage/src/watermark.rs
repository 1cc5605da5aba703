//! A number that only rises, reserved ahead, so that a restart begins above all that was given out.
//!
//! Naming draws its stamps from memory, thousands a second. What lies on the disk is a *high-water mark*
//! above all of them; it is written before stamps reach it, so rarely that nobody waits for it. The file is
//! replaced as a whole; of a damaged one its owner is told, who then has the wall clock alone.

use std::io;
use std::path::{Path, PathBuf};

use bytes::BufMut;

use crate::codec::Fields;
use crate::dir;
use crate::error::StorageError;
use crate::fault::Faults;

const MAGIC: &[u8; 8] = b"rnacosWM";
/// Of what stands between the magic number and the checksum.
const BYTES: usize = 17;
/// The same in files of before the first release that has [`Watermark::ahead_ms`].
const EARLIER_BYTES: usize = 9;

/// What stands in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watermark {
    /// Nothing above it has been given out.
    pub reserved: u64,
    /// Its owner held something that clients will bring again after a restart.
    pub in_use: bool,
    /// By how much the owner's other clock, of which nothing is reserved, was ahead of the wall clock, ms. 0 in a
    /// file of an earlier version.
    pub ahead_ms: u64,
}

/// The file `naming` in a data folder.
#[derive(Clone, Debug)]
pub struct WatermarkFile(PathBuf);

impl WatermarkFile {
    /// That of a data folder.
    pub fn in_folder(folder: impl AsRef<Path>) -> WatermarkFile {
        WatermarkFile(folder.as_ref().join("naming"))
    }

    /// What the last run has left; `None` when there was none.
    ///
    /// # Errors
    /// It is there and cannot be read, or is damaged.
    pub fn load(&self) -> io::Result<Option<Watermark>> {
        match std::fs::read(&self.0) {
            Ok(bytes) => match decode(&bytes) {
                Some(watermark) => Ok(Some(watermark)),
                None => Err(io::Error::new(io::ErrorKind::InvalidData, "the file is damaged")),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces it, synced. Blocks.
    ///
    /// # Errors
    /// The disk; the earlier one stays in force.
    pub fn store(&self, watermark: Watermark) -> Result<(), StorageError> {
        dir::replace_file(&self.0, &encode(watermark), &Faults::default())
    }
}

fn encode(watermark: Watermark) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.put_u64_le(watermark.reserved);
    out.put_u8(u8::from(watermark.in_use));
    out.put_u64_le(watermark.ahead_ms);
    let crc = crc32fast::hash(&out);
    out.put_u32_le(crc);
    out
}

fn decode(bytes: &[u8]) -> Option<Watermark> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    let rest = body.strip_prefix(MAGIC)?;
    if crc32fast::hash(body).to_le_bytes() != *crc || ![EARLIER_BYTES, BYTES].contains(&rest.len()) {
        return None;
    }
    let mut fields = Fields(rest);
    Some(Watermark {
        reserved: fields.u64(),
        in_use: fields.u8() == 1,
        ahead_ms: if rest.len() == BYTES { fields.u64() } else { 0 },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stored_comes_back_and_damage_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let file = WatermarkFile::in_folder(folder.path());
        assert_eq!(file.load().unwrap(), None);
        let mark = Watermark {
            reserved: 1_763_802_000_123,
            in_use: true,
            ahead_ms: 250,
        };
        file.store(mark).unwrap();
        assert_eq!(file.load().unwrap(), Some(mark));
        let bytes = encode(mark);
        for place in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[place] ^= 1;
            assert_eq!(decode(&flipped), None, "byte {place}");
            assert_eq!(decode(&bytes[..place]), None, "cut at {place}");
        }
        let mut earlier = bytes[..MAGIC.len() + EARLIER_BYTES].to_vec();
        earlier.put_u32_le(crc32fast::hash(&earlier));
        let known = Watermark { ahead_ms: 0, ..mark };
        assert_eq!(decode(&earlier), Some(known), "a file of an earlier version");
        std::fs::write(&file.0, &bytes[1..]).unwrap();
        assert!(file.load().is_err(), "that is not the same as none");
    }
}
