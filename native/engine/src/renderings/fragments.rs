//! The boxes of an MP4 file (ISO/IEC 14496-12), as far as it takes to know how much of a fragmented
//! one is whole, and how many frames a file has. Of video nothing is read, only headers.
//!
//! ```text
//! box     size u32 (0: to the end; 1: u64 behind the type), type 4, body        all big-endian
//! file    ftyp, moov, (moof, mdat)*              fragmented: `moof` says what is in the next `mdat`
//! moof    mfhd, traf (tfhd, tfdt, trun*)*
//! trun    version u8, flags u24, sample_count u32, ...
//! moov    trak > mdia > minf > stbl > stsz: version and flags u32, sample_size u32, sample_count u32
//! ```

use std::io::{self, Read, Seek, SeekFrom};

/// Headers beyond this are damage: that of a fragment of one frame has a hundred bytes, and that of a
/// plain file a few a frame.
const MAX_HEADER_BYTES: u64 = 64 << 20;

/// Flags of a `trun` that say what is there before its samples, and for each of them: 4 bytes each.
const BEFORE_SAMPLES: [u32; 2] = [0x01, 0x04];
const PER_SAMPLE: [u32; 4] = [0x100, 0x200, 0x400, 0x800];

/// The beginning of a fragmented file that can be played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Whole {
    /// It ends behind its last whole fragment.
    pub bytes: u64,
    pub frame_count: u64,
}

/// How much of a fragmented file is whole; `None`: not even one fragment.
///
/// # Errors
///
/// As `read(2)`. Damage is no error: the file is whole up to there.
pub(super) fn whole(file: &mut (impl Read + Seek)) -> io::Result<Option<Whole>> {
    let end = file.seek(SeekFrom::End(0))?;
    let (mut whole, mut at, mut frame_count) = (None, 0, 0);
    let mut has_moov = false;
    // Of the fragment whose data comes next.
    let mut announced = None;
    while let Some(header) = header(file, at, end)? {
        match &header.kind {
            b"moov" => has_moov = true,
            b"moof" if has_moov => {
                let Some(body) = body(file, &header)? else { break };
                let Some(count) = fragment_samples(&body) else { break };
                announced = Some(count);
            }
            b"mdat" => {
                if let Some(count) = announced.take() {
                    frame_count += count;
                    whole = Some(Whole { bytes: header.end, frame_count });
                }
            }
            _ => {}
        }
        at = header.end;
    }
    Ok(whole)
}

/// How many frames a file has, by its index or its fragments; 0: neither says.
///
/// # Errors
///
/// As `read(2)`.
pub(super) fn frame_count(file: &mut (impl Read + Seek)) -> io::Result<u64> {
    match sample_count(file)? {
        Some(count) if count > 0 => Ok(count),
        _ => Ok(whole(file)?.map_or(0, |whole| whole.frame_count)),
    }
}

/// How many frames the index of a file has; `None`: there is none.
fn sample_count(file: &mut (impl Read + Seek)) -> io::Result<Option<u64>> {
    let end = file.seek(SeekFrom::End(0))?;
    let mut at = 0;
    while let Some(header) = header(file, at, end)? {
        if header.kind == *b"moov" {
            let Some(moov) = body(file, &header)? else { return Ok(None) };
            return Ok(Boxes(&moov).of(*b"trak").find_map(track_samples));
        }
        at = header.end;
    }
    Ok(None)
}

fn track_samples(trak: &[u8]) -> Option<u64> {
    let mut inner = trak;
    for kind in [b"mdia", b"minf", b"stbl", b"stsz"] {
        inner = Boxes(inner).of(*kind).next()?;
    }
    u32_at(inner, 8).map(u64::from)
}

/// A box in a file, wholly inside it.
struct Header {
    kind: [u8; 4],
    body: u64,
    end: u64,
}

/// `None`: there is no box at `at` that ends before `end`.
fn header(file: &mut (impl Read + Seek), at: u64, end: u64) -> io::Result<Option<Header>> {
    let available = end.saturating_sub(at).min(16) as usize;
    let mut bytes = [0; 16];
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut bytes[..available])?;
    let Some((kind, head, size)) = parse_header(&bytes[..available]) else { return Ok(None) };
    let header = Header { kind, body: at + head, end: at.saturating_add(size) };
    Ok(Some(header).filter(|header| header.end <= end))
}

/// Type, length of the header, length of the box. A box that goes on to the end of the file is none:
/// nothing tells whether it is whole.
fn parse_header(bytes: &[u8]) -> Option<([u8; 4], u64, u64)> {
    let kind: [u8; 4] = bytes.get(4..8)?.try_into().ok()?;
    let (head, size) = match u32_at(bytes, 0)? {
        1 => (16, u64::from_be_bytes(bytes.get(8..16)?.try_into().ok()?)),
        size => (8, u64::from(size)),
    };
    (size >= head).then_some((kind, head, size))
}

fn body(file: &mut (impl Read + Seek), header: &Header) -> io::Result<Option<Vec<u8>>> {
    let len = header.end - header.body;
    if len > MAX_HEADER_BYTES {
        return Ok(None);
    }
    let mut body = vec![0; len as usize];
    file.seek(SeekFrom::Start(header.body))?;
    file.read_exact(&mut body)?;
    Ok(Some(body))
}

/// How many samples a `moof` announces; `None`: it is damaged.
fn fragment_samples(moof: &[u8]) -> Option<u64> {
    let mut count = 0;
    for traf in Boxes(moof).of(*b"traf") {
        for trun in Boxes(traf).of(*b"trun") {
            count += run_samples(trun)?;
        }
    }
    (count > 0).then_some(count)
}

/// The samples of a `trun`, whose fields the version only gives another sign.
fn run_samples(trun: &[u8]) -> Option<u64> {
    let flags = u32_at(trun, 0)? & 0x00ff_ffff;
    let samples = u64::from(u32_at(trun, 4)?);
    let fields = |all: &[u32]| 4 * all.iter().filter(|flag| flags & **flag != 0).count() as u64;
    let len = 8 + fields(&BEFORE_SAMPLES) + samples.checked_mul(fields(&PER_SAMPLE))?;
    (len <= trun.len() as u64).then_some(samples)
}

/// Boxes one behind the other, in memory. What is no box ends them.
struct Boxes<'a>(&'a [u8]);

impl<'a> Boxes<'a> {
    /// The bodies of those of one type.
    fn of(self, kind: [u8; 4]) -> impl Iterator<Item = &'a [u8]> {
        self.filter_map(move |(found, body)| (found == kind).then_some(body))
    }
}

impl<'a> Iterator for Boxes<'a> {
    type Item = ([u8; 4], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (kind, head, size) = parse_header(self.0)?;
        let (whole, rest) = self.0.split_at_checked(usize::try_from(size).ok()?)?;
        self.0 = rest;
        Some((kind, &whole[head as usize..]))
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
