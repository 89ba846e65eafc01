//! Fragmented files, cut and damaged anywhere.

use std::io::Cursor;

use proptest::prelude::*;

use super::super::fragments::{Whole, frame_count, whole};

fn boxed(kind: [u8; 4], body: &[&[u8]]) -> Vec<u8> {
    let body = body.concat();
    [&(body.len() as u32 + 8).to_be_bytes()[..], &kind, &body].concat()
}

fn long_boxed(kind: [u8; 4], body: &[u8]) -> Vec<u8> {
    let len = body.len() as u64 + 16;
    [&1u32.to_be_bytes()[..], &kind, &len.to_be_bytes(), body].concat()
}

/// A `trun` with these fields; `per_sample` of the samples are there.
fn run(version: u8, flags: u32, samples: u32, there: usize) -> Vec<u8> {
    let word = u32::from(version) << 24 | flags;
    let before = 4 * [1, 4].iter().filter(|flag| flags & **flag != 0).count();
    let each = 4 * [0x100, 0x200, 0x400, 0x800].iter().filter(|flag| flags & **flag != 0).count();
    let fields = vec![7; before + each * there];
    boxed(*b"trun", &[&word.to_be_bytes(), &samples.to_be_bytes(), &fields])
}

fn moof(runs: &[Vec<u8>]) -> Vec<u8> {
    let tracks: Vec<_> =
        runs.iter().map(|run| boxed(*b"traf", &[&boxed(*b"tfhd", &[&[0; 8]]), run])).collect();
    boxed(*b"moof", &[&boxed(*b"mfhd", &[&[0; 8]]), &tracks.concat()])
}

fn beginning() -> Vec<u8> {
    [boxed(*b"ftyp", &[b"isom"]), boxed(*b"moov", &[&boxed(*b"mvhd", &[&[0; 20]])])].concat()
}

/// A file, and where each of its fragments ends and how many frames there are until then.
fn file() -> (Vec<u8>, Vec<Whole>) {
    let mut file = beginning();
    let mut wholes = Vec::new();
    let fragments = [
        (moof(&[run(0, 0x205, 1, 1)]), boxed(*b"mdat", &[&[1; 30]])),
        (moof(&[run(1, 0xf01, 2, 2)]), long_boxed(*b"mdat", &[2; 40])),
        (moof(&[run(0, 0, 3, 0), run(0, 0x800, 1, 1)]), boxed(*b"mdat", &[])),
    ];
    let mut frame_count = 0;
    for ((moof, mdat), frames) in fragments.into_iter().zip([1, 2, 4]) {
        // What an encoder may put between them.
        file.extend(boxed(*b"styp", &[b"msdh"]));
        file.extend(moof);
        file.extend(mdat);
        frame_count += frames;
        wholes.push(Whole { bytes: file.len() as u64, frame_count });
    }
    file.extend(boxed(*b"mfra", &[&[0; 16]]));
    (file, wholes)
}

fn whole_of(bytes: &[u8]) -> Option<Whole> {
    whole(&mut Cursor::new(bytes)).unwrap()
}

#[test]
fn test_a_file_is_whole_up_to_its_last_fragment_wherever_it_is_cut() {
    let (file, wholes) = file();
    for cut in 0..=file.len() {
        let expected = wholes.iter().rfind(|whole| whole.bytes <= cut as u64);
        assert_eq!(whole_of(&file[..cut]), expected.copied(), "cut at {cut}");
    }
}

#[test]
fn test_zeros_that_a_power_cut_left_are_no_fragment() {
    let (mut file, wholes) = file();
    for (at, whole) in wholes.iter().enumerate() {
        let end = file.len();
        file[whole.bytes as usize..end].fill(0);
        let (mut again, _) = self::file();
        again[whole.bytes as usize..].fill(0);
        assert_eq!(whole_of(&again), Some(*whole), "fragment {at}");
    }
    assert_eq!(whole_of(&vec![0; 1000]), None);
}

#[test]
fn test_a_fragment_whose_header_contradicts_itself_ends_the_file() {
    let mdat = boxed(*b"mdat", &[&[1; 30]]);
    let first = [moof(&[run(0, 0x200, 1, 1)]), mdat.clone()].concat();
    let behind_first = Whole { bytes: (beginning().len() + first.len()) as u64, frame_count: 1 };
    for bad in [
        moof(&[run(0, 0x200, 2, 1)]),
        moof(&[run(0, 0xf00, u32::MAX, 1)]),
        moof(&[]),
        moof(&[boxed(*b"trun", &[&[0; 7]])]),
        boxed(*b"moof", &[]),
    ] {
        let file = [beginning(), first.clone(), bad, mdat.clone()].concat();
        assert_eq!(whole_of(&file), Some(behind_first));
    }
    // Without what comes first nothing can be played.
    assert_eq!(whole_of(&first), None);
    // A box to the end of the file may go on for ever.
    let mut open = [beginning(), first.clone(), first.clone()].concat();
    let at = open.len() - mdat.len();
    open[at..at + 4].fill(0);
    assert_eq!(whole_of(&open), Some(behind_first));
}

#[test]
fn test_the_frames_of_a_plain_file_are_counted_in_its_index() {
    let plain = |inner: Vec<u8>| {
        let track = ["stbl", "minf", "mdia", "trak"].iter().fold(inner, |inner, kind| {
            boxed(kind.as_bytes().try_into().unwrap(), &[&boxed(*b"free", &[b"x"]), &inner])
        });
        let file = [
            boxed(*b"ftyp", &[b"isom"]),
            boxed(*b"mdat", &[&[3; 50]]),
            boxed(*b"moov", &[&boxed(*b"mvhd", &[&[0; 20]]), &track]),
        ];
        frame_count(&mut Cursor::new(file.concat())).unwrap()
    };
    let sizes = [&[0; 8][..], &200u32.to_be_bytes(), &[0; 800]].concat();
    assert_eq!(plain(boxed(*b"stsz", &[&sizes])), 200);
    assert_eq!(plain(boxed(*b"stsz", &[&[0; 7]])), 0);
    assert_eq!(plain(boxed(*b"stco", &[&[0; 8]])), 0);
    assert_eq!(frame_count(&mut Cursor::new(b"no video")).unwrap(), 0);
}

#[test]
fn test_the_frames_of_a_fragmented_file_are_those_of_its_fragments() {
    let (fragmented, wholes) = file();
    let count = frame_count(&mut Cursor::new(fragmented)).unwrap();
    assert_eq!(count, wholes[2].frame_count);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn test_damage_anywhere_is_no_panic_and_never_beyond_the_file(
        changes in prop::collection::vec((0usize..600, any::<u8>()), 0..6),
        cut in 0usize..600,
    ) {
        let (mut file, _) = file();
        for (at, byte) in changes {
            let at = at % file.len();
            file[at] = byte;
        }
        file.truncate(cut);
        let found = whole_of(&file);
        prop_assert!(found.is_none_or(|found| found.bytes <= file.len() as u64));
        let _ = frame_count(&mut Cursor::new(&file)).unwrap();
    }
}
