//! What the encoders of a living writer ask of it.

use std::io;
use std::path::PathBuf;

use super::renderings_folder;
use crate::engine::Engine;
use crate::error::LogError;
use crate::platform;
use crate::types::RenderingId;

impl Engine {
    /// The folder that renderings are encoded in, made if it is not there; `None`: the writer is
    /// closed. Its place changes if somebody deletes the writer's folder. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// When it cannot be made, or when the disk has no more room than is left to others and the spool
    /// has no limit of its own: what is encoded there takes as much room as the spool does.
    pub fn rendering_folder(&self) -> io::Result<Option<PathBuf>> {
        if self.is_closed() {
            return Ok(None);
        }
        let writer = self.shared().folder.lock().as_ref().map(|folder| folder.path().to_owned());
        let Some(writer) = writer else { return Ok(None) };
        if self.parts.config.spool.max_bytes.is_none() {
            // Not to know is no reason to refuse.
            let checked = platform::space(&writer).map_or(Ok(()), platform::Space::check);
            checked.map_err(|what| io::Error::new(io::ErrorKind::StorageFull, what))?;
        }
        let folder = renderings_folder(&writer);
        match platform::create_private_folder(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(Some(folder)),
        }
    }

    /// `<rendering_id>.mp4` is in that folder: it is sealed when those before it are. Does not block.
    ///
    /// # Errors
    ///
    /// [`LogError::Closed`]: the file is left to recovery.
    pub fn rendering_finished(&self, id: RenderingId) -> Result<(), LogError> {
        if self.is_closed() {
            return Err(LogError::Closed);
        }
        self.shared().renderings.lock().push(id);
        self.shared().ask(|_| {});
        Ok(())
    }
}
