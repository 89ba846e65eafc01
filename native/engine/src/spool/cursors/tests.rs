//! The file's bytes, its damage, and merging.

use proptest::prelude::*;

use super::*;
use crate::spool::Disk;
use crate::spool::golden::hex;

fn set() -> CursorSet {
    CursorSet {
        series: vec![
            SeriesCursor {
                name: "loss".to_owned(),
                scale: Scale::MlStep,
                labels: vec![("a".to_owned(), "b".to_owned())],
                env_id: None,
                position: Position { step: 7, ..Position::NONE },
            },
            SeriesCursor {
                name: "reward".to_owned(),
                scale: Scale::EnvironmentStep,
                labels: Vec::new(),
                env_id: Some("e0".to_owned()),
                position: Position { rl_step: 3, episode: 2, step: 1 },
            },
        ],
        environments: vec![EnvironmentCursor {
            env_id: "e0".to_owned(),
            rl_step: 3,
            episode: 2,
            ended_episode: 1,
        }],
    }
}

#[test]
fn test_cursor_file_bytes_are_those_of_version_1() {
    let golden = concat!(
        "4d45545243555253", // magic
        "0100000000000000", // version
        "9000000000000000", // body length
        "01000000",         // environments
        "020000006530",     // "e0"
        "030000000000000002000000000000000100000000000000",
        "02000000",                     // metrics
        "01040000006c6f7373",           // ML_STEP "loss"
        "0100000001000000610100000062", // {"a": "b"}
        "0306000000726577617264",       // ENVIRONMENT_STEP "reward"
        "00000000",                     // no labels
        "02000000",                     // series
        "0000000000000000",             // loss, no environment
        "ffffffffffffffffffffffffffffffff0700000000000000",
        "0100000001000000", // reward, e0
        "030000000000000002000000000000000100000000000000",
    );
    let bytes = set().encode();
    let hex = hex(&bytes);
    // Bytes 24 to 32 are the two checksums.
    assert_eq!([&hex[..48], &hex[64..]].concat(), golden);
    assert_eq!(bytes[24..28], crc32c::crc32c(&bytes[32..]).to_le_bytes());
    assert_eq!(bytes[28..32], crc32c::crc32c(&bytes[..28]).to_le_bytes());
    assert_eq!(CursorSet::decode(&bytes, Path::new("x")).unwrap(), set());
}

#[test]
fn test_every_cut_and_every_flipped_bit_is_damage() {
    let bytes = set().encode();
    let is_damaged = |bytes: &[u8]| {
        matches!(CursorSet::decode(bytes, Path::new("x")), Err(CursorsError::Damaged(_)))
    };
    assert!((0..bytes.len()).all(|end| is_damaged(&bytes[..end])));
    assert!(is_damaged(&[&bytes[..], b"x"].concat()));
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(is_damaged(&flipped), "bit {bit}");
    }
}

#[test]
fn test_a_newer_file_is_refused_by_name() {
    let mut bytes = set().encode();
    bytes[8] = 2;
    let crc = crc32c::crc32c(&bytes[..28]);
    bytes[28..32].copy_from_slice(&crc.to_le_bytes());
    let error = CursorSet::decode(&bytes, Path::new("x")).unwrap_err();
    assert!(error.to_string().contains("upgrade metrana"), "{error}");
}

#[test]
fn test_an_environment_known_by_a_series_alone_is_nowhere() {
    let only_series = CursorSet { environments: Vec::new(), ..set() };
    let read = CursorSet::decode(&only_series.encode(), Path::new("x")).unwrap();
    assert_eq!(read.series, set().series);
    assert_eq!(read.environments, [EnvironmentCursor::nowhere("e0")]);
}

#[test]
fn test_writing_replaces_the_file_and_leaves_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("000001");
    CursorSet::default().write(&path, &Disk).unwrap();
    set().write(&path, &Disk).unwrap();
    assert_eq!(CursorSet::read(&path).unwrap(), set());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let missing = CursorSet::read(&folder.path().join("x"));
    assert!(matches!(missing, Err(CursorsError::Io { .. })));
}

fn cursors() -> impl Strategy<Value = CursorSet> {
    let position = (-1i64..3, -1i64..3, -1i64..3).prop_map(|(rl_step, episode, step)| Position {
        rl_step,
        episode,
        step,
    });
    let series = (0..3u8, 0..3u8, position).prop_map(|(name, env, position)| SeriesCursor {
        name: format!("m{name}"),
        scale: Scale::EnvironmentStep,
        labels: Vec::new(),
        env_id: (env > 0).then(|| format!("e{env}")),
        position,
    });
    let environment = (0..3u8, -1i64..3, -1i64..3).prop_map(|(env, rl_step, episode)| {
        EnvironmentCursor { env_id: format!("e{env}"), rl_step, episode, ended_episode: -1 }
    });
    let sets = (prop::collection::vec(series, 0..6), prop::collection::vec(environment, 0..4));
    sets.prop_map(|(series, environments)| {
        // Each identity once, as a writer gives them.
        let mut set = CursorSet::default();
        for one in series {
            set.merge(CursorSet { series: vec![one], environments: Vec::new() });
        }
        for one in environments {
            set.merge(CursorSet { series: Vec::new(), environments: vec![one] });
        }
        set
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn test_merging_keeps_the_greatest_of_each(one in cursors(), other in cursors()) {
        let mut merged = one.clone();
        merged.merge(other.clone());
        let key = |series: &SeriesCursor| (series.name.clone(), series.env_id.clone());
        for series in one.series.iter().chain(&other.series) {
            let all = one.series.iter().chain(&other.series);
            let same = all.filter(|of| key(of) == key(series)).map(|of| of.position);
            let rl_step = same.clone().map(|of| of.rl_step).max();
            let last = same.map(|of| (of.episode, of.step)).max();
            let found: Vec<_> = merged.series.iter().filter(|of| key(of) == key(series)).collect();
            prop_assert_eq!(found.len(), 1);
            let Position { rl_step: of, episode, step } = found[0].position;
            prop_assert_eq!((Some(of), Some((episode, step))), (rl_step, last));
        }
        for environment in one.environments.iter().chain(&other.environments) {
            let all = one.environments.iter().chain(&other.environments);
            let same = all.filter(|of| of.env_id == environment.env_id);
            let greatest = same.clone().map(|of| of.rl_step).max();
            let found = merged.environments.iter().filter(|of| of.env_id == environment.env_id);
            prop_assert_eq!(found.clone().count(), 1);
            prop_assert_eq!(found.map(|of| of.rl_step).max(), greatest);
        }
        let read = CursorSet::decode(&merged.encode(), Path::new("x")).unwrap();
        prop_assert_eq!(read.series, merged.series);
    }
}
