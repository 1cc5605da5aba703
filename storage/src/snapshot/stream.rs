//! The bytes of a snapshot, written and read as a stream.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use bytes::{BufMut, Bytes};
use raft::{Configuration, LogBase};

use crate::codec::{Fields, PAYLOAD_BYTES_MAX};
use crate::hard_state::{put_base, take_base};
use crate::table::{WHOLE_KEY_BYTES_MAX, is_user_key};

/// Rows are gathered into a block until it has this many bytes; one larger row makes a larger block.
pub const BLOCK_BYTES: usize = 256 << 10;

/// Largest block that is believed.
const BLOCK_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + WHOLE_KEY_BYTES_MAX + 8;

/// Largest membership that is believed.
const MEMBERSHIP_BYTES_MAX: usize = 1 << 20;

const MAGIC: &[u8; 8] = b"rnacosSN";
const END: &[u8; 8] = b"rnacosND";
const VERSION: u32 = 1;

/// Why a stream is not a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The bytes are wrong.
    #[error("the snapshot is damaged: {0}")]
    Damaged(&'static str),
    /// They could not be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads a snapshot from any source: header at once, then rows. Allocates no more than the source is
/// long.
pub struct SnapshotStream<R> {
    reader: R,
    /// Bytes the source still has.
    left: u64,
    point: LogBase,
    configuration: Configuration,
    /// crc32 of the block before (of the header for the first).
    chain: u32,
    /// Rows of the current block that are still to be given out.
    block: Bytes,
    /// The key given out last: keys ascend strictly.
    last_key: Bytes,
    rows: u64,
    finished: bool,
}

impl<R: Read> SnapshotStream<R> {
    /// Reads the header of a source of `size_bytes` bytes.
    ///
    /// # Errors
    /// Anything but an intact header.
    pub fn new(reader: R, size_bytes: u64) -> Result<SnapshotStream<R>, StreamError> {
        let mut this = SnapshotStream {
            reader,
            left: size_bytes,
            point: LogBase::default(),
            configuration: Configuration::default(),
            chain: 0,
            block: Bytes::new(),
            last_key: Bytes::new(),
            rows: 0,
            finished: false,
        };
        let mut header = this.read(8 + 4 + 20 + 4)?;
        let mut fields = Fields(&header);
        if fields.bytes(8) != Some(MAGIC) {
            return Err(StreamError::Damaged("it does not start as one"));
        }
        if fields.u32() != VERSION {
            return Err(StreamError::Damaged("its version is not known"));
        }
        this.point = take_base(&mut fields);
        let length = fields.u32() as usize;
        if length > MEMBERSHIP_BYTES_MAX {
            return Err(StreamError::Damaged("its membership is too long"));
        }
        let membership = this.read(length)?;
        header.extend_from_slice(&membership);
        let crc = Fields(&this.read(4)?).u32();
        if crc32fast::hash(&header) != crc {
            return Err(StreamError::Damaged("the checksum of its header does not fit"));
        }
        this.configuration = Configuration::decode(&membership)
            .map_err(|_| StreamError::Damaged("its membership cannot be read"))?;
        this.chain = crc;
        Ok(this)
    }

    /// The point it stands at.
    pub fn point(&self) -> LogBase {
        self.point
    }

    /// The membership in force there.
    pub fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    fn read(&mut self, length: usize) -> Result<Vec<u8>, StreamError> {
        if length as u64 > self.left {
            return Err(StreamError::Damaged("it is cut off"));
        }
        let mut bytes = vec![0; length];
        self.reader.read_exact(&mut bytes)?;
        self.left -= length as u64;
        Ok(bytes)
    }

    /// Reads the next block or the trailer.
    fn next_block(&mut self) -> Result<(), StreamError> {
        let length = Fields(&self.read(4)?).u32();
        if length == 0 {
            return self.trailer();
        }
        if length as usize > BLOCK_BYTES_MAX {
            return Err(StreamError::Damaged("a block is too long"));
        }
        let crc = Fields(&self.read(4)?).u32();
        let block = self.read(length as usize)?;
        if block_crc(self.chain, &block) != crc {
            return Err(StreamError::Damaged("the checksum of a block does not fit"));
        }
        self.chain = crc;
        self.block = block.into();
        Ok(())
    }

    fn trailer(&mut self) -> Result<(), StreamError> {
        let trailer = self.read(8 + 8 + 4)?;
        let mut fields = Fields(&trailer);
        let rows = fields.u64();
        if fields.bytes(8) != Some(END) || fields.u32() != trailer_crc(self.chain, rows) {
            return Err(StreamError::Damaged("its trailer does not fit"));
        }
        if rows != self.rows || self.left != 0 {
            return Err(StreamError::Damaged("rows are missing, or bytes follow its end"));
        }
        self.finished = true;
        Ok(())
    }

    fn next_row(&mut self) -> Result<Option<(Bytes, Bytes)>, StreamError> {
        while self.block.is_empty() {
            if self.finished {
                return Ok(None);
            }
            self.next_block()?;
        }
        let mut fields = Fields(&self.block);
        let key_length = fields.u32() as usize;
        let value_length = fields.u32() as usize;
        let end = 8usize.saturating_add(key_length).saturating_add(value_length);
        if end > self.block.len() {
            return Err(StreamError::Damaged("a row leaves its block"));
        }
        let key = self.block.slice(8..8 + key_length);
        let value = self.block.slice(8 + key_length..end);
        self.block = self.block.slice(end..);
        if !is_user_key(&key) || key <= self.last_key {
            return Err(StreamError::Damaged("its rows are not in order"));
        }
        self.last_key = key.clone();
        self.rows += 1;
        Ok(Some((key, value)))
    }
}

impl<R: Read> Iterator for SnapshotStream<R> {
    type Item = Result<(Bytes, Bytes), StreamError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.next_row() {
            Ok(row) => row.map(Ok),
            Err(error) => {
                // After an error there is nothing more to trust.
                self.block = Bytes::new();
                self.finished = true;
                Some(Err(error))
            }
        }
    }
}

/// Writes a snapshot file.
pub(crate) struct SnapshotWriter {
    out: BufWriter<File>,
    hasher: crc32fast::Hasher,
    size: u64,
    chain: u32,
    block: Vec<u8>,
    rows: u64,
}

impl SnapshotWriter {
    pub(crate) fn create(
        path: &Path,
        point: LogBase,
        configuration: &Configuration,
    ) -> io::Result<SnapshotWriter> {
        let out = BufWriter::new(File::create(path)?);
        let membership = configuration.encode();
        let mut header = MAGIC.to_vec();
        header.put_u32_le(VERSION);
        put_base(&mut header, point);
        header.put_u32_le(membership.len() as u32);
        header.put_slice(&membership);
        let chain = crc32fast::hash(&header);
        header.put_u32_le(chain);
        let hasher = crc32fast::Hasher::new();
        let mut this = SnapshotWriter {
            out,
            hasher,
            size: 0,
            chain,
            block: Vec::new(),
            rows: 0,
        };
        this.write(&header)?;
        Ok(this)
    }

    pub(crate) fn row(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        let bytes = 8 + key.len() + value.len();
        if !self.block.is_empty() && self.block.len() + bytes > BLOCK_BYTES {
            self.flush_block()?;
        }
        self.block.put_u32_le(key.len() as u32);
        self.block.put_u32_le(value.len() as u32);
        self.block.put_slice(key);
        self.block.put_slice(value);
        self.rows += 1;
        Ok(())
    }

    fn flush_block(&mut self) -> io::Result<()> {
        let block = std::mem::take(&mut self.block);
        if block.is_empty() {
            return Ok(());
        }
        self.chain = block_crc(self.chain, &block);
        let mut head = Vec::with_capacity(8);
        head.put_u32_le(block.len() as u32);
        head.put_u32_le(self.chain);
        self.write(&head)?;
        self.write(&block)?;
        self.block = block;
        self.block.clear();
        Ok(())
    }

    /// Ends the file; gives it back with its size and checksum. Not synced yet.
    pub(crate) fn finish(mut self) -> io::Result<(File, u64, u32)> {
        self.flush_block()?;
        let mut trailer = Vec::with_capacity(24);
        trailer.put_u32_le(0);
        trailer.put_u64_le(self.rows);
        trailer.put_slice(END);
        trailer.put_u32_le(trailer_crc(self.chain, self.rows));
        self.write(&trailer)?;
        let file = self.out.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok((file, self.size, self.hasher.finalize()))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

fn block_crc(chain: u32, block: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&chain.to_le_bytes());
    hasher.update(&(block.len() as u32).to_le_bytes());
    hasher.update(block);
    hasher.finalize()
}

fn trailer_crc(chain: u32, rows: u64) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&chain.to_le_bytes());
    hasher.update(&rows.to_le_bytes());
    hasher.finalize()
}
