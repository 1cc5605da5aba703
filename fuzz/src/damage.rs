//! What disks do to bytes: bits flip, sectors read as zeros, files end too early.

use crate::input::Input;

/// Bytes that a disk writes as a whole.
pub const SECTOR_BYTES: usize = 512;

/// One thing that happened to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// A bit is another one.
    Flip {
        /// Its number.
        bit: usize,
    },
    /// A sector reads as zeros.
    Zero {
        /// Its number.
        sector: usize,
    },
    /// The file ends here.
    Cut {
        /// Its length.
        length: usize,
    },
}

impl Damage {
    /// Damage to a file of `length` bytes, chosen by the input; `None` when there is nothing to damage.
    pub fn choose(input: &mut Input<'_>, length: usize) -> Option<Damage> {
        if length == 0 {
            return None;
        }
        Some(match input.u8() % 4 {
            0 | 1 => Damage::Flip {
                bit: input.below(length) * 8 + input.below(8),
            },
            2 => Damage::Zero {
                sector: input.below(length.div_ceil(SECTOR_BYTES)),
            },
            _ => Damage::Cut {
                length: input.below(length),
            },
        })
    }

    /// Does it. A place that an earlier cut took away is not damaged.
    pub fn apply(self, bytes: &mut Vec<u8>) {
        match self {
            Damage::Flip { bit } => {
                if let Some(byte) = bytes.get_mut(bit / 8) {
                    *byte ^= 1 << (bit % 8);
                }
            }
            Damage::Zero { sector } => {
                let start = (sector * SECTOR_BYTES).min(bytes.len());
                let end = (start + SECTOR_BYTES).min(bytes.len());
                bytes[start..end].fill(0);
            }
            Damage::Cut { length } => bytes.truncate(length),
        }
    }
}
