//! A spool's folder as the sender wants it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::named_spool::NamedSpoolReader;
use crate::sender::{FrameSource, Spool, SpoolItem};
use crate::spool::SpoolEvent;
use crate::sync::Mutex;
use crate::transport::Batch;
use crate::types::{Seq, WriterId};

/// The folder of a writer.
#[derive(Clone, Debug)]
pub struct SpoolSource {
    place: SpoolPlace,
    /// Whose spool it is, if another's may be in its place.
    owner: Option<WriterId>,
    has_ended: bool,
}

/// Where a writer's spool is. A clone is the same place.
///
/// A living writer goes on in another folder if somebody deletes its own and another writer comes
/// by its number.
#[derive(Clone, Debug)]
pub struct SpoolPlace(Arc<Mutex<PathBuf>>);

impl SpoolPlace {
    pub fn new(folder: &Path) -> Self {
        Self(Arc::new(Mutex::new(folder.to_owned())))
    }

    pub fn set(&self, folder: &Path) {
        folder.clone_into(&mut self.0.lock());
    }
}

impl SpoolSource {
    pub fn new(folder: &Path) -> Self {
        Self { place: SpoolPlace::new(folder), owner: None, has_ended: false }
    }

    /// Of a writer that may go on elsewhere.
    pub fn of_living(owner: WriterId, place: SpoolPlace) -> Self {
        Self { place, owner: Some(owner), has_ended: false }
    }

    /// Of a writer that is dead or closed: what is torn stays torn.
    pub fn ended(folder: &Path) -> Self {
        Self { has_ended: true, ..Self::new(folder) }
    }
}

impl Spool for SpoolSource {
    fn open(&self, first: Seq) -> io::Result<Box<dyn FrameSource>> {
        let folder = self.place.0.lock().clone();
        let mut reader = NamedSpoolReader::open(&folder, first)?;
        if let Some(owner) = self.owner {
            reader.only_of(owner);
        }
        if self.has_ended {
            reader.writer_has_ended();
        }
        Ok(Box::new(Frames { reader, place: self.place.clone() }))
    }
}

struct Frames {
    reader: NamedSpoolReader,
    place: SpoolPlace,
}

impl FrameSource for Frames {
    fn next(&mut self) -> io::Result<Option<SpoolItem>> {
        self.reader.go_on_in(&self.place.0.lock());
        loop {
            return Ok(match self.reader.next_event()? {
                None => None,
                Some(SpoolEvent::Damage(damage)) => match damage.lost {
                    Some((first, last)) => {
                        Some(SpoolItem::Lost { first, last, message: damage.message })
                    }
                    // Nothing that anybody waits for.
                    None => continue,
                },
                Some(SpoolEvent::Frame(frame)) => {
                    let (payload, payload_crc32c) = (frame.payload, frame.payload_crc32c);
                    let Some(kind) = frame.kind.batch() else {
                        return Ok(Some(SpoolItem::Declarations { payload, payload_crc32c }));
                    };
                    let (seq, urgent) = (frame.seq, frame.urgent);
                    Some(SpoolItem::Batch(Batch { seq, kind, payload, payload_crc32c, urgent }))
                }
            });
        }
    }
}
