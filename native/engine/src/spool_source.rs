//! A spool's folder as the sender wants it.

use std::io;
use std::path::{Path, PathBuf};

use crate::named_spool::NamedSpoolReader;
use crate::sender::{FrameSource, Spool, SpoolItem};
use crate::spool::{FrameKind, SpoolEvent};
use crate::transport::Batch;
use crate::types::{BatchKind, Seq};

/// The folder of a writer.
#[derive(Clone, Debug)]
pub struct SpoolSource {
    folder: PathBuf,
    has_ended: bool,
}

impl SpoolSource {
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), has_ended: false }
    }

    /// Of a writer that is dead or closed: what is torn stays torn.
    pub fn ended(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), has_ended: true }
    }
}

impl Spool for SpoolSource {
    fn open(&self, first: Seq) -> io::Result<Box<dyn FrameSource>> {
        let mut reader = NamedSpoolReader::open(&self.folder, first)?;
        if self.has_ended {
            reader.writer_has_ended();
        }
        Ok(Box::new(Frames(reader)))
    }
}

struct Frames(NamedSpoolReader);

impl FrameSource for Frames {
    fn next(&mut self) -> io::Result<Option<SpoolItem>> {
        loop {
            return Ok(match self.0.next_event()? {
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
                    let kind = match frame.kind {
                        FrameKind::Declarations => {
                            return Ok(Some(SpoolItem::Declarations { payload, payload_crc32c }));
                        }
                        FrameKind::Points => BatchKind::Points,
                        FrameKind::Attributes => BatchKind::Attributes,
                    };
                    let (seq, urgent) = (frame.seq, frame.urgent);
                    Some(SpoolItem::Batch(Batch { seq, kind, payload, payload_crc32c, urgent }))
                }
            });
        }
    }
}
