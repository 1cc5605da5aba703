//! A disk whose power can be cut: what was not synced is gone.
//!
//! An ext4 file system in an image file, mounted over a loop device. The cut is ext4's own emergency
//! stop, `FS_IOC_SHUTDOWN` without flushing its journal: from that moment nothing reaches the device, and
//! neither does what lay unsynced in the page cache; every later write or sync fails with EIO. Unmounting
//! and mounting again replays the journal as after a real cut.
//!
//! What it cannot show: a disk that lies about syncs, and sectors torn in the middle.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::ioctl::{Setter, ioctl, opcode};

/// Bytes of an image; sparse, so only what is written takes room.
const IMAGE_BYTES: u64 = 2 << 30;

/// What takes the room away while the disk is nearly full.
const FILLER: &str = "filler";

/// How long an unmount is tried: nobody uses the disk then.
const BUSY_MAX: Duration = Duration::from_secs(5);

/// `EXT4_GOING_FLAGS_NOLOGFLUSH`: stop at once, write nothing more, the journal neither.
const NO_LOG_FLUSH: u32 = 2;

/// A mounted image. Unmounted and removed when dropped.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    mount_point: PathBuf,
    mounted: bool,
}

impl Disk {
    /// Makes and mounts a fresh disk named `name` in `directory`. Needs root and loop devices.
    pub fn new(directory: &Path, name: &str) -> anyhow::Result<Self> {
        let image = directory.join(format!("{name}.img"));
        let mount_point = directory.join(name);
        File::create(&image)?.set_len(IMAGE_BYTES)?;
        std::fs::create_dir_all(&mount_point)?;
        // No lazy initialisation: a background thread would write while the test runs.
        let mut make = Command::new("mkfs.ext4");
        make.args(["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"])
            .arg(&image);
        call(&mut make)?;
        let mut disk = Self {
            image,
            mount_point,
            mounted: false,
        };
        disk.mount()?;
        Ok(disk)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.mount_point
    }

    /// Cuts the power. Processes may still have files open; all they get from now on is EIO.
    pub fn cut(&self) -> anyhow::Result<()> {
        let root = File::open(&self.mount_point)?;
        shutdown(&root).with_context(|| format!("FS_IOC_SHUTDOWN on {}", self.mount_point.display()))
    }

    /// Unmounts and mounts again: the disk as it is found after the cut. No process may use it.
    pub fn power_on(&mut self) -> anyhow::Result<()> {
        self.unmount()?;
        self.mount()
    }

    /// Takes room away until no more than `left_bytes` can be written.
    pub fn fill(&self, left_bytes: u64) -> anyhow::Result<()> {
        let stat = statvfs(&self.mount_point).map_err(io::Error::from)?;
        let free_bytes = stat.f_bavail.saturating_mul(stat.f_frsize);
        let filler = File::create(self.mount_point.join(FILLER))?;
        let taken_bytes = free_bytes.saturating_sub(left_bytes).max(1);
        // Allocates without writing: takes no time, and the image stays as small as it is.
        fallocate(&filler, FallocateFlags::empty(), 0, taken_bytes).map_err(io::Error::from)?;
        Ok(())
    }

    /// Gives the room back; no error if none was taken.
    pub fn make_room(&self) -> io::Result<()> {
        match std::fs::remove_file(self.mount_point.join(FILLER)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn mount(&mut self) -> anyhow::Result<()> {
        call(
            Command::new("mount")
                .args(["-o", "loop,noatime"])
                .arg(&self.image)
                .arg(&self.mount_point),
        )?;
        self.mounted = true;
        Ok(())
    }

    fn unmount(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        while self.mounted {
            match call(Command::new("umount").arg(&self.mount_point)) {
                Ok(()) => self.mounted = false,
                // Somebody who looks at all file systems (`df`) keeps it busy for a moment.
                Err(_) if begun.elapsed() < BUSY_MAX => std::thread::sleep(Duration::from_millis(20)),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted && self.unmount().is_err() {
            // Somebody still has a file open; a lazy unmount goes through as soon as they are gone.
            let _ = call(Command::new("umount").arg("-l").arg(&self.mount_point));
        }
        let _ = std::fs::remove_file(&self.image);
    }
}

/// Runs a command to its end; its own words are the error.
pub fn call(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    anyhow::ensure!(output.status.success(), "{command:?}: {said}");
    Ok(())
}

/// `FS_IOC_SHUTDOWN`, number 125 of group `X`; takes the flags by reference.
fn shutdown(root: &File) -> io::Result<()> {
    const SHUTDOWN: rustix::ioctl::Opcode = opcode::read::<u32>(b'X', 125);
    #[expect(
        unsafe_code,
        reason = "an ioctl has no safe form; opcode and argument are those of ext4"
    )]
    // SAFETY: the opcode reads one u32 through the pointer given, which lives through the call.
    let done = unsafe { ioctl(root, Setter::<SHUTDOWN, u32>::new(NO_LOG_FLUSH)) };
    done.map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use loadtest::process::Scratch;
    use std::io::Write as _;

    /// Room is taken away at once, and comes back at once.
    #[test]
    fn a_disk_is_filled_and_emptied() {
        let scratch = Scratch::new(None, "jepsen-full").expect("scratch");
        let disk = match Disk::new(scratch.path(), "disk") {
            Ok(disk) => disk,
            Err(error) => {
                crate::verdict::tell(format!("not proved here, a disk cannot be mounted: {error:#}"));
                return;
            }
        };
        let free_mib = || {
            let stat = statvfs(disk.path()).expect("statvfs");
            (stat.f_bavail * stat.f_frsize) >> 20
        };
        let before = free_mib();
        disk.make_room().expect("nothing to remove");
        disk.fill(20 << 20).expect("fill");
        assert!(free_mib() <= 20, "{} MiB are free", free_mib());
        disk.make_room().expect("remove");
        assert!(free_mib() + 1 >= before);
    }

    /// Proves the tool itself: synced data outlives the cut, unsynced data does not, and a sync after the
    /// cut fails. Says why and proves nothing where mounting is not allowed (no root, no loop devices).
    #[test]
    fn a_cut_takes_what_was_not_synced_and_nothing_else() {
        let scratch = Scratch::new(None, "jepsen-disk").expect("scratch");
        let mut disk = match Disk::new(scratch.path(), "disk") {
            Ok(disk) => disk,
            Err(error) => {
                crate::verdict::tell(format!("not proved here, a disk cannot be mounted: {error:#}"));
                return;
            }
        };
        let mut kept = File::create(disk.path().join("kept")).expect("create");
        kept.write_all(b"synced").expect("write");
        kept.sync_all().expect("sync");
        File::open(disk.path())
            .expect("folder")
            .sync_all()
            .expect("sync of the folder");
        kept.write_all(b" and not synced").expect("write");
        let mut lost = File::create(disk.path().join("lost")).expect("create");
        lost.write_all(b"not synced").expect("write");
        disk.cut().expect("cut");
        assert!(kept.sync_all().is_err(), "a sync after the cut must fail");
        drop((kept, lost));
        disk.power_on().expect("power on");
        assert_eq!(std::fs::read(disk.path().join("kept")).expect("kept"), b"synced");
        assert!(!disk.path().join("lost").exists());
    }
}
