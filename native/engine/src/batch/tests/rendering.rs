//! Pieces of renderings.

use proptest::prelude::*;

use super::*;
use crate::spool::golden::hex;
use crate::types::{MAX_ENV_ID_BYTES, MAX_EPISODE, MAX_RL_STEP, RenderingId};

const ID: RenderingId = RenderingId(*b"0123456789abcdef");

fn end() -> RenderingEnd {
    RenderingEnd {
        env_id: "env-7".to_owned(),
        episode: 300,
        rl_step: 4096,
        part: 1,
        width: 640,
        height: 480,
        fps: 30.0,
        frame_count: 200,
        size: 0x1234_5678 + 3,
        sha256: std::array::from_fn(|at| at as u8),
    }
}

fn encoded(piece: &RenderingPiece<'_>) -> Vec<u8> {
    let mut payload = Vec::new();
    encode_piece(piece, &mut payload);
    payload
}

fn last_piece() -> Vec<u8> {
    let piece =
        RenderingPiece { rendering_id: ID, offset: 0x1234_5678, last: Some(end()), data: b"abc" };
    encoded(&piece)
}

#[test]
fn test_bytes_of_a_piece_are_those_of_version_1() {
    let piece = RenderingPiece { rendering_id: ID, offset: 0x1234, last: None, data: b"abc" };
    let payload = encoded(&piece);
    let golden = "01000400303132333435363738396162636465663412000000000000616263";
    assert_eq!(hex(&payload), golden);
    assert_eq!(decode_piece(&payload), Ok(piece));
    assert_eq!(piece_head_len(None), payload.len() - 3);
    assert_eq!(peek(&payload).unwrap().kind, BatchKind::Renderings);
}

#[test]
fn test_bytes_of_the_last_piece_are_those_of_version_1() {
    let payload = last_piece();
    let golden = concat!(
        "01000401",                         // version, kind, flags
        "30313233343536373839616263646566", // rendering_id
        "7856341200000000",                 // offset
        "05656e762d37",                     // env_id
        "d804",                             // episode
        "8040",                             // rl_step
        "01",                               // part
        "8005",                             // width
        "e003",                             // height
        "0000000000003e40",                 // fps
        "c801",                             // frame_count
        "7b56341200000000",                 // size
        "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
        "616263",
    );
    assert_eq!(hex(&payload), golden);
    assert_eq!(decode_piece(&payload).unwrap().last, Some(end()));
    assert_eq!(piece_head_len(Some(&end())), payload.len() - 3);
}

#[test]
fn test_flags_kinds_and_versions_that_are_not_defined_are_refused() {
    for (at, byte) in [(0, 2), (1, 1), (2, 2), (2, 3), (2, 5), (3, 2), (3, 3), (3, 0x80)] {
        let mut payload = last_piece();
        payload[at] = byte;
        assert!(decode_piece(&payload).is_err(), "{byte} at {at}");
    }
    assert!(decode(&last_piece()).is_err(), "it holds no points");
}

#[test]
fn test_a_last_piece_is_refused_wherever_it_is_cut() {
    let payload = last_piece();
    for length in 0..payload.len() {
        assert!(decode_piece(&payload[..length]).is_err(), "cut at {length}");
    }
    assert!(decode_piece(&[&payload[..], &[0]].concat()).is_err());
}

#[test]
fn test_what_no_rendering_can_be_is_refused() {
    let changes: [fn(&mut RenderingEnd); 11] = [
        |end| end.env_id.clear(),
        |end| end.env_id = "e".repeat(MAX_ENV_ID_BYTES + 1),
        |end| end.episode = -1,
        |end| end.episode = MAX_EPISODE + 1,
        |end| end.rl_step = MAX_RL_STEP + 1,
        |end| end.part = 0,
        |end| end.width = 0,
        |end| end.height = 0,
        |end| end.fps = f64::NAN,
        |end| end.fps = 0.0,
        |end| end.size -= 1,
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let mut end = end();
        change(&mut end);
        let piece =
            RenderingPiece { rendering_id: ID, offset: 0x1234_5678, last: Some(end), data: b"abc" };
        assert!(decode_piece(&encoded(&piece)).is_err(), "change {at}");
    }
    let offset = u64::MAX - 1;
    let beyond = RenderingPiece { rendering_id: ID, offset, last: None, data: b"abc" };
    assert!(decode_piece(&encoded(&beyond)).is_err());
}

fn ends() -> impl Strategy<Value = RenderingEnd> {
    let names = ("[A-Za-z0-9._~:-]{1,128}", 0..=MAX_EPISODE, 0..=MAX_RL_STEP);
    let sizes = (1..=u32::MAX, 1..=u32::MAX, 1..=u32::MAX, 1e-3..1e6f64, any::<u64>());
    (names, sizes, any::<[u8; 32]>()).prop_map(|(names, sizes, sha256)| {
        let (env_id, episode, rl_step) = names;
        let (part, width, height, fps, frame_count) = sizes;
        RenderingEnd {
            env_id,
            episode,
            rl_step,
            part,
            width,
            height,
            fps,
            frame_count,
            size: 0,
            sha256,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn test_pieces_survive(
        id in any::<[u8; 16]>(),
        offset in 0..u64::MAX / 2,
        end in prop::option::of(ends()),
        data in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let size = offset + data.len() as u64;
        let last = end.map(|end| RenderingEnd { size, ..end });
        let piece = RenderingPiece { rendering_id: RenderingId(id), offset, last, data: &data };
        let payload = encoded(&piece);
        prop_assert_eq!(decode_piece(&payload), Ok(piece));
    }

    #[test]
    fn test_no_bytes_make_the_decoder_panic(
        at in 0usize..100,
        bytes in prop::collection::vec(any::<u8>(), 0..40),
        cut in 0usize..120,
    ) {
        let mut payload = last_piece();
        let at = at.min(payload.len());
        let end = (at + bytes.len()).min(payload.len());
        payload.splice(at..end, bytes.iter().copied());
        payload.truncate(cut);
        let _ = (decode_piece(&payload), decode_piece(&bytes), peek(&payload));
    }
}
