//! How far dead writers had got.

use super::*;
use crate::recovery::positions;

fn steps(run: &RunFolder) -> Vec<(String, i64)> {
    let (cursors, problems) = run.cursors();
    assert_eq!(problems.len(), 0, "{problems:?}");
    let mut steps: Vec<_> =
        cursors.series.into_iter().map(|series| (series.name, series.position.step)).collect();
    steps.sort_unstable();
    steps
}

fn named(steps: &[(&str, i64)]) -> Vec<(String, i64)> {
    steps.iter().map(|(name, step)| ((*name).to_owned(), *step)).collect()
}

#[test]
fn test_positions_of_a_dead_writer_outlive_its_spool() {
    let folder = memory_folder();
    let mut life = Life::begin(folder.path(), RingPlace::Folder(folder.path().into()), sound());
    for at in 0..30 {
        life.log_point(at % 2 + 1, f64::from(at));
    }
    life.die();
    let run = run_folder(folder.path());
    let path = run.writers().unwrap().remove(0).path;
    assert_eq!(recovered(&path).unknown_positions, [""; 0]);
    assert_eq!(steps(&run), named(&[("m1", 14), ("m2", 14)]));
    WriterLock::take(&path, false).unwrap().remove_delivered().unwrap();
    assert!(run.writers().unwrap().is_empty());
    assert_eq!(steps(&run), named(&[("m1", 14), ("m2", 14)]));
    assert_eq!(run.claim_writer().unwrap().number(), 2, "numbers with cursors are not used again");
}

#[test]
fn test_positions_written_while_the_writer_lived_are_merged_with_those_in_its_spool() {
    let folder = memory_folder();
    let mut life = Life::begin(folder.path(), RingPlace::Folder(folder.path().into()), sound());
    for at in 0..30 {
        life.log_point(at % 2 + 1, f64::from(at));
    }
    // Written before acknowledged segments were deleted: m1 was further on there, m2 not as far,
    // m3 nowhere else.
    let cursor = |name: &str, step| SeriesCursor {
        name: name.to_owned(),
        scale: Scale::MlStep,
        labels: Vec::new(),
        env_id: None,
        position: Position { step, ..Position::NONE },
    };
    let series = vec![cursor("m1", 90), cursor("m2", 3), cursor("m3", 7)];
    life.folder
        .place()
        .write_cursors(&CursorSet { series, environments: Vec::new() }, &sound())
        .unwrap();
    let (path, _) = life.die();
    recovered(&path);
    let run = run_folder(folder.path());
    assert_eq!(steps(&run), named(&[("m1", 90), ("m2", 14), ("m3", 7)]));
}

#[test]
fn test_damaged_positions_are_told_and_found_out_anew() {
    let folder = memory_folder();
    let mut life = Life::begin(folder.path(), RingPlace::Folder(folder.path().into()), sound());
    life.log_point(1, 1.0);
    life.folder.place().write_cursors(&CursorSet::default(), &sound()).unwrap();
    let (path, _) = life.die();
    let run = run_folder(folder.path());
    std::fs::write(run.path().join("cursors/000001"), "METRCURS").unwrap();
    let report = recovered(&path);
    assert!(report.unknown_positions[0].contains("damaged"), "{report:?}");
    assert_eq!(steps(&run), named(&[("m1", 0)]));
}

#[test]
fn test_episode_points_end_their_episode() {
    let mut environment = EnvironmentCursor::nowhere("e");
    positions::go_on(
        &mut environment,
        Scale::EnvironmentStep,
        Position { rl_step: 7, episode: 4, step: 9 },
    );
    positions::go_on(
        &mut environment,
        Scale::Episode,
        Position { rl_step: 6, episode: 3, step: -1 },
    );
    assert_eq!((environment.rl_step, environment.episode, environment.ended_episode), (7, 4, 3));
}
