//! The few things a spool does to its folder, behind a trait: tests put a disk there that is full,
//! writes half of what it is given, or dies between any two operations.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek as _, Write};
use std::path::Path;

use crate::platform::{self, Durability};

/// A deleted file is copied in pieces of this size.
const COPY_BYTES: usize = 64 << 10;

/// A folder's operations that change it.
pub trait SpoolFiles: fmt::Debug + Send + Sync {
    /// A new file for appending, for its owner alone; there must be none of that name.
    ///
    /// # Errors
    ///
    /// As `open(2)`.
    fn create(&self, path: &Path) -> io::Result<Box<dyn SpoolFile>>;

    /// Cuts a file that nobody has open.
    ///
    /// # Errors
    ///
    /// As `truncate(2)`.
    fn truncate(&self, path: &Path, bytes: u64) -> io::Result<()>;

    /// Deletes a file.
    ///
    /// # Errors
    ///
    /// As `unlink(2)`.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Gives a file another name, in place of the file that has it.
    ///
    /// # Errors
    ///
    /// As `rename(2)`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Makes the folder's names durable.
    ///
    /// # Errors
    ///
    /// As `fsync(2)`.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;
}

/// A file that is appended to.
pub trait SpoolFile: fmt::Debug + Send {
    /// Appends some of the bytes, as `write(2)` does.
    ///
    /// # Errors
    ///
    /// As `write(2)`.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Cuts the file; the next write appends there.
    ///
    /// # Errors
    ///
    /// As `ftruncate(2)`.
    fn truncate(&mut self, bytes: u64) -> io::Result<()>;

    /// Makes what was written durable.
    ///
    /// # Errors
    ///
    /// As `fdatasync(2)`.
    fn sync(&mut self) -> io::Result<()>;

    /// Whether somebody deleted it: then what is written vanishes with the process.
    ///
    /// # Errors
    ///
    /// As `fstat(2)`.
    fn is_deleted(&self) -> io::Result<bool> {
        Ok(false)
    }

    /// Appends the first `bytes` of it to another file.
    ///
    /// # Errors
    ///
    /// As `read(2)` and `write(2)`.
    fn copy_to(&mut self, bytes: u64, copy: &mut dyn SpoolFile) -> io::Result<()> {
        let _ = (bytes, copy);
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// The real ones.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl SpoolFiles for Disk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn SpoolFile>> {
        // Read only if somebody deletes it and it has to be copied.
        let file = platform::private_file().read(true).append(true).create_new(true).open(path)?;
        Ok(Box::new(DiskFile(file)))
    }

    fn truncate(&self, path: &Path, bytes: u64) -> io::Result<()> {
        let file = File::options().write(true).open(path)?;
        file.set_len(bytes)?;
        file.sync_data()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        platform::sync_folder(path)
    }
}

#[derive(Debug)]
struct DiskFile(File);

impl SpoolFile for DiskFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        // The file is open for appending, so the position needs no moving.
        self.0.set_len(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn is_deleted(&self) -> io::Result<bool> {
        Ok(platform::link_count(&self.0)? == Some(0))
    }

    fn copy_to(&mut self, bytes: u64, copy: &mut dyn SpoolFile) -> io::Result<()> {
        self.0.rewind()?;
        let mut left = Read::take(&mut self.0, bytes);
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            match left.read(&mut buffer)? {
                0 if left.limit() == 0 => return Ok(()),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => write_all(copy, &buffer[..count])?,
            }
        }
    }
}

/// Replaces a file by these bytes, so that a reader sees the old or the new and never half of one.
/// The new one is its owner's alone.
///
/// # Errors
///
/// When it cannot be written or renamed; the old file stays then.
pub(crate) fn replace_file(
    files: &dyn SpoolFiles,
    path: &Path,
    durability: Durability,
    bytes: &[u8],
) -> io::Result<()> {
    let temporary = platform::temporary_path(path)?;
    let written = (|| {
        let mut file = files.create(&temporary)?;
        write_all(file.as_mut(), bytes)?;
        // A rename that outlives its contents would leave an empty file after a power cut.
        if durability == Durability::Durable {
            file.sync()?;
        }
        files.rename(&temporary, path)
    })();
    if written.is_err() {
        let _ = files.remove(&temporary);
    }
    written
}

/// `write(2)` until all is written.
pub(super) fn write_all(file: &mut dyn SpoolFile, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
