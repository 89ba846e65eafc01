//! Files as encoders leave them.

mod fragments;
mod living;
#[path = "../../../tests/common/renderings.rs"]
mod server;

use std::path::Path;

pub(crate) use server::Renderings;

use super::*;
use crate::spool::Disk;
use crate::types::RenderingId;

pub(crate) fn id(number: u8) -> RenderingId {
    RenderingId([number; 16])
}

/// The bytes of a video, as far as nobody plays it.
pub(crate) fn video(number: u8, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| number.wrapping_add((at * 31 / 7) as u8)).collect()
}

pub(crate) fn write(writer_folder: &Path, name: &str, bytes: &[u8]) {
    let folder = renderings_folder(writer_folder);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(name), bytes).unwrap();
}

pub(crate) fn write_sidecar(writer_folder: &Path, number: u8) {
    let text = format!(
        "{{\"version\": 1, \"env_id\": \"env-{number}\", \"episode\": {number}, \"rl_step\": 7, \
         \"part\": 1, \"width\": 64, \"height\": 48, \"fps\": 30, \"frame_count\": 9}}"
    );
    write(writer_folder, &format!("{}.json", id(number)), text.as_bytes());
}

/// A rendering that is finished.
pub(crate) fn finish(writer_folder: &Path, number: u8, bytes: usize) {
    write_sidecar(writer_folder, number);
    write(writer_folder, &format!("{}.mp4", id(number)), &video(number, bytes));
}

/// What is in the folder, sorted.
pub(crate) fn names(writer_folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(renderings_folder(writer_folder)).into_iter().flatten();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

#[test]
fn test_a_folder_tells_what_is_left_of_renderings() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let shown = || (video_count(path).unwrap(), left(path).unwrap());
    assert_eq!(shown(), (0, LeftRenderings::Nothing), "there is no folder");
    write_sidecar(path, 1);
    write(path, "notes.mp4", b"nobody's");
    assert_eq!(shown(), (0, LeftRenderings::Nothing), "no video is a rendering's");
    write(path, &format!("{}.part", id(2)), b"a video");
    assert_eq!(shown(), (1, LeftRenderings::Unreadable), "what it shows is not known");
    finish(path, 3, 10);
    assert_eq!(shown(), (2, LeftRenderings::Unsealed));
    write(path, &format!("{}.json", id(3)), b"{\"version\": 2}");
    assert_eq!(shown(), (2, LeftRenderings::Unsealed), "a newer engine seals it");
    remove(path, id(3), &Disk).unwrap();
    remove_rest(path, &Disk).unwrap();
    assert_eq!(names(path), [format!("{}.part", id(2)), "notes.mp4".to_owned()]);
}

#[test]
fn test_a_sidecar_that_cannot_be_read_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let why = |text: &str| {
        finish(path, 1, 10);
        write(path, &format!("{}.json", id(1)), text.as_bytes());
        OpenRendering::whole(path, id(1)).unwrap_err()
    };
    let whole = "{\"version\": 1, \"env_id\": \"e\", \"episode\": 0, \"rl_step\": 0, \"part\": 1, \
                 \"width\": 2, \"height\": 2, \"fps\": 30.0}";
    for (text, word) in [
        ("", "EOF"),
        ("{", "EOF"),
        ("{}", "version"),
        ("{\"version\": 1}", "env_id"),
        (&whole.replace("\"e\"", "\"\""), "env_id"),
        (&whole.replace("\"part\": 1", "\"part\": 0"), "part"),
        (&whole.replace("\"rl_step\": 0", "\"rl_step\": -1"), "rl_step"),
        (&whole.replace("30.0", "-1"), "fps"),
        (&whole.replace("30.0", "1e999"), "out of range"),
    ] {
        let error = why(text);
        assert!(error.is_for_good() && error.to_string().contains(word), "{text}: {error}");
    }
    let newer = why("{\"version\": 2}");
    assert!(!newer.is_for_good() && newer.to_string().contains("upgrade metrana"), "{newer}");
    write(path, &format!("{}.json", id(1)), whole.as_bytes());
    assert!(OpenRendering::whole(path, id(1)).is_ok());
    std::fs::remove_file(renderings_folder(path).join(format!("{}.json", id(1)))).unwrap();
    let missing = OpenRendering::whole(path, id(1)).unwrap_err();
    assert!(missing.is_for_good() && missing.to_string().contains("missing"), "{missing}");
}
