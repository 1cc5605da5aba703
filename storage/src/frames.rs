//! A file of frames that is appended to and may lose its end.
//!
//! For what is good to have after a restart, and is no promise: frames are not synced, so a killed process
//! loses none that was appended and a power cut the newest. A frame is its length, not 0, and its crc32 (u32,
//! little endian) and its bytes; reading ends at the first one that is not whole, and appending goes on there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes};

const MAGIC: &[u8; 8] = b"rnacosFR";
const HEAD_BYTES: u64 = 8;

/// A longer frame is none, bytes.
const FRAME_BYTES_MAX: usize = 64 << 20;

/// A file of frames, open for appending.
#[derive(Debug)]
pub struct FrameFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    /// It still has a name of its own, beside the one it is to replace.
    draft: Option<PathBuf>,
}

impl FrameFile {
    /// Opens the file at `path` for appending and shows each of its frames to `read`; `None` when there is no
    /// such file, or it is of another kind. What follows the last whole frame is cut off. Blocks.
    ///
    /// # Errors
    /// The disk.
    pub fn open(path: &Path, mut read: impl FnMut(Bytes)) -> io::Result<Option<FrameFile>> {
        let mut file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let length = file.metadata()?.len();
        let mut reader = BufReader::with_capacity(1 << 20, &file);
        let mut magic = Vec::new();
        (&mut reader).take(MAGIC.len() as u64).read_to_end(&mut magic)?;
        if magic != MAGIC {
            return Ok(None);
        }
        let mut bytes = MAGIC.len() as u64;
        while let Some(frame) = next_frame(&mut reader, length - bytes)? {
            bytes += HEAD_BYTES + frame.len() as u64;
            read(frame);
        }
        drop(reader);
        file.set_len(bytes)?;
        file.seek(SeekFrom::Start(bytes))?;
        Ok(Some(FrameFile {
            path: path.to_owned(),
            file,
            bytes,
            draft: None,
        }))
    }

    /// An empty file that takes the place of the one at `path` with [`FrameFile::publish`]. Blocks.
    ///
    /// # Errors
    /// The disk.
    pub fn draft(path: &Path) -> io::Result<FrameFile> {
        let mut draft = path.as_os_str().to_owned();
        draft.push(".tmp");
        let draft = PathBuf::from(draft);
        let mut file = File::create(&draft)?;
        file.write_all(MAGIC)?;
        Ok(FrameFile {
            path: path.to_owned(),
            file,
            bytes: MAGIC.len() as u64,
            draft: Some(draft),
        })
    }

    /// Adds frames at the end, in one write. Blocks.
    ///
    /// # Errors
    /// The disk, or a frame that is empty or too long; the file is of no use any more.
    pub fn append(&mut self, frames: &[Bytes]) -> io::Result<()> {
        let mut out = Vec::with_capacity(frames.iter().map(|frame| frame.len() + 8).sum());
        for frame in frames {
            let length = u32::try_from(frame.len()).ok();
            let length = length.filter(|_| (1..=FRAME_BYTES_MAX).contains(&frame.len()));
            let impossible = || io::Error::new(io::ErrorKind::InvalidInput, "the frame is empty or too long");
            let length = length.ok_or_else(impossible)?;
            out.extend(length.to_le_bytes());
            out.extend(crc32fast::hash(frame).to_le_bytes());
            out.extend_from_slice(frame);
        }
        self.file.write_all(&out)?;
        self.bytes += out.len() as u64;
        Ok(())
    }

    /// Puts a draft in its place, so that after a power cut there is either one. Blocks.
    ///
    /// # Errors
    /// The disk; the earlier file may still be there.
    pub fn publish(&mut self) -> io::Result<()> {
        if let Some(draft) = self.draft.take() {
            self.file.sync_all()?;
            fs::rename(draft, &self.path)?;
        }
        Ok(())
    }

    /// Its length.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// The next whole frame of the `left` bytes that are there.
fn next_frame(reader: &mut impl Read, left: u64) -> io::Result<Option<Bytes>> {
    if left < HEAD_BYTES {
        return Ok(None);
    }
    let mut head = [0; HEAD_BYTES as usize];
    reader.read_exact(&mut head)?;
    let mut fields = head.as_slice();
    let (length, crc) = (fields.get_u32_le() as usize, fields.get_u32_le());
    // A power cut leaves zeros.
    if length == 0 || length > FRAME_BYTES_MAX || length as u64 > left - HEAD_BYTES {
        return Ok(None);
    }
    let mut frame = vec![0; length];
    reader.read_exact(&mut frame)?;
    Ok((crc32fast::hash(&frame) == crc).then(|| frame.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAMES: [&[u8]; 3] = [b"first", b"2", b"the third"];

    fn frames() -> Vec<Bytes> {
        FRAMES.map(Bytes::from_static).to_vec()
    }

    fn read(path: &Path) -> (Option<FrameFile>, Vec<Bytes>) {
        let mut frames = Vec::new();
        let file = FrameFile::open(path, |frame| frames.push(frame)).unwrap();
        (file, frames)
    }

    #[test]
    fn what_was_appended_comes_back_and_more_can_follow() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        assert!(read(&path).0.is_none());
        let mut draft = FrameFile::draft(&path).unwrap();
        draft.append(&frames()).unwrap();
        assert!(read(&path).0.is_none(), "a draft is nobody's file");
        draft.publish().unwrap();
        draft.append(&[Bytes::from_static(b"more")]).unwrap();
        drop(draft);
        let (file, found) = read(&path);
        let mut file = file.unwrap();
        assert_eq!(found.len(), 4);
        file.append(&[Bytes::from_static(b"after")]).unwrap();
        let (again, found) = read(&path);
        assert_eq!(found.last().unwrap(), "after");
        assert_eq!(again.unwrap().bytes(), file.bytes());
        FrameFile::draft(&path).unwrap().publish().unwrap();
        assert_eq!(read(&path).1, Vec::<Bytes>::new(), "replaced");
    }

    #[test]
    fn a_cut_or_a_flipped_byte_ends_the_file_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        let mut draft = FrameFile::draft(&path).unwrap();
        draft.append(&frames()).unwrap();
        draft.publish().unwrap();
        let whole = fs::read(&path).unwrap();
        for place in 0..whole.len() {
            fs::write(&path, &whole[..place]).unwrap();
            let (_, found) = read(&path);
            assert!(frames().starts_with(&found), "cut at {place}");
            assert!(found.len() < 3);
            let mut flipped = whole.clone();
            flipped[place] ^= 0x40;
            fs::write(&path, &flipped).unwrap();
            let (file, found) = read(&path);
            assert!(
                found.len() < 3 && frames().starts_with(&found),
                "flipped at {place}"
            );
            if let Some(mut file) = file {
                file.append(&[Bytes::from_static(b"after")]).unwrap();
                assert_eq!(read(&path).1.last().unwrap(), "after", "at {place}");
            }
        }
    }
}
