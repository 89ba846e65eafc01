//! Claiming a run: who creates it, who joins, who is refused.

use std::collections::BTreeSet;
use std::sync::Barrier;

use super::*;

#[test]
fn test_the_first_creates_and_the_same_job_joins() {
    let folder = tempfile::tempdir().unwrap();
    let (first, claim) = RunFolder::claim(folder.path(), &request("job")).unwrap();
    assert_eq!(claim, Claim::Created);
    let (second, claim) = RunFolder::claim(folder.path(), &request("job")).unwrap();
    assert_eq!((claim, second.run()), (Claim::Joined, first.run()));
    assert_eq!(first.run().experiment_name, "exp");
    assert_eq!(RunFolder::open(first.path()).unwrap(), first);
    assert_eq!(RunFolder::list(folder.path()).unwrap(), std::slice::from_ref(&first));
    assert_eq!(RunFolder::find(folder.path(), first.run().run_id).unwrap(), Some(first));
    assert_eq!(RunFolder::find(folder.path(), RunId([0; 16])).unwrap(), None);
}

#[test]
fn test_another_job_is_refused_with_both_ids_unless_it_may_resume() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path());
    let error = RunFolder::claim(folder.path(), &request("other")).unwrap_err();
    let RunFolderError::OtherJob { theirs, ours, .. } = &error else { panic!("{error}") };
    assert_eq!((theirs.as_str(), ours.as_str()), ("job", "other"));
    assert!(error.to_string().contains("\"job\"") && error.to_string().contains("\"other\""));
    let allowed = RunRequest { resume: ResumeStrategy::Allow, ..request("other") };
    assert_eq!(RunFolder::claim(folder.path(), &allowed).unwrap().1, Claim::Resumed);
    let wanted = RunRequest { run_id: Some(RunId([9; 16])), ..allowed };
    let error = RunFolder::claim(folder.path(), &wanted).unwrap_err();
    assert!(matches!(error, RunFolderError::OtherRun { .. }), "{error}");
}

#[test]
fn test_many_who_come_at_once_agree_on_one_run() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..20 {
        let name = format!("run-{round}");
        let barrier = Barrier::new(8);
        let claims: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        let names = RunNames { run_name: &name, ..NAMES };
                        barrier.wait();
                        let request = RunRequest { names, ..request("job") };
                        let (run, claim) = RunFolder::claim(folder.path(), &request).unwrap();
                        (run.run().run_id, claim, run.claim_writer().unwrap().number())
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(claims.iter().filter(|(_, claim, _)| *claim == Claim::Created).count(), 1);
        assert_eq!(claims.iter().map(|(run_id, ..)| *run_id).collect::<BTreeSet<_>>().len(), 1);
        let numbers: BTreeSet<_> = claims.iter().map(|(.., number)| *number).collect();
        assert_eq!(numbers, (1..=8).collect());
    }
}

#[test]
fn test_a_run_json_that_was_lost_is_made_anew_from_its_writers() {
    let folder = tempfile::tempdir().unwrap();
    let run = run(folder.path());
    let written = writer(&run).path().join(WRITER_JSON);
    std::fs::remove_file(run.path().join(RUN_JSON)).unwrap();
    assert_eq!(RunFolder::list_all(folder.path()).unwrap().1.len(), 1);
    let error = RunFolder::claim(folder.path(), &request("job")).unwrap_err();
    assert!(error.to_string().contains("resume_strategy"), "{error}");
    let allowed = RunRequest { resume: ResumeStrategy::Allow, ..request("job") };
    let wanted = RunRequest { run_id: Some(RunId([9; 16])), ..allowed };
    assert!(RunFolder::claim(folder.path(), &wanted).is_err());
    let (found, claim) = RunFolder::claim(folder.path(), &allowed).unwrap();
    assert_eq!((found.run().run_id, claim), (info(1).run_id, Claim::Resumed));
    std::fs::remove_file(run.path().join(RUN_JSON)).unwrap();
    std::fs::write(written, "").unwrap();
    assert!(run.writers().unwrap()[0].is_undelivered);
    let error = RunFolder::claim(folder.path(), &allowed).unwrap_err();
    assert!(error.to_string().contains("no writer beside it"), "{error}");
}

#[test]
fn test_an_empty_run_json_is_replaced_by_the_next_claim() {
    let folder = tempfile::tempdir().unwrap();
    let path = run(folder.path()).path().to_owned();
    let file = path.join(RUN_JSON);
    std::fs::write(&file, "").unwrap();
    age(&file);
    let (run, claim) = RunFolder::claim(folder.path(), &request("other")).unwrap();
    assert_eq!((claim, RunFolder::open(&path).unwrap()), (Claim::Created, run.clone()));
    // Beside a writer the run is not new.
    writer(&run);
    std::fs::write(&file, "").unwrap();
    age(&file);
    let error = RunFolder::claim(folder.path(), &request("other")).unwrap_err();
    assert!(error.to_string().contains("resume_strategy"), "{error}");
    let allowed = RunRequest { resume: ResumeStrategy::Allow, ..request("other") };
    let (found, claim) = RunFolder::claim(folder.path(), &allowed).unwrap();
    assert_eq!((found.run().run_id, claim), (info(1).run_id, Claim::Resumed));
}

#[test]
fn test_an_empty_run_json_that_somebody_fills_is_left_to_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = run(folder.path()).path().join(RUN_JSON);
    std::fs::write(&file, "").unwrap();
    age(&file);
    let filling = std::fs::File::open(&file).unwrap();
    filling.lock().unwrap();
    let error = RunFolder::claim(folder.path(), &request("job")).unwrap_err();
    assert!(matches!(error, RunFolderError::Unreadable { .. }), "{error}");
    drop(filling);
    assert!(RunFolder::claim(folder.path(), &request("job")).is_ok());
}

#[test]
fn test_a_run_json_that_somebody_is_about_to_delete_is_not_filled() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(RUN_JSON);
    let file = std::fs::File::create(&path).unwrap();
    let deleting = std::fs::File::open(&path).unwrap();
    deleting.lock().unwrap();
    assert!(!info::fill(&file, &path, b"{}").unwrap());
    assert_eq!(std::fs::read(&path).unwrap(), b"");
    drop(deleting);
    assert!(info::fill(&file, &path, b"{}").unwrap());
    assert_eq!(std::fs::read(&path).unwrap(), b"{}");
}

#[test]
fn test_a_run_json_that_cannot_be_filled_is_in_nobodys_way() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(RUN_JSON);
    std::fs::write(&path, "").unwrap();
    // Open for reading, so that writing fails.
    assert!(info::fill(&std::fs::File::open(&path).unwrap(), &path, b"{}").is_err());
    assert!(!path.exists());
}

#[test]
fn test_every_cut_and_every_flipped_bit_of_a_run_json_is_an_error_or_the_same_run() {
    let folder = tempfile::tempdir().unwrap();
    let run = run(folder.path());
    let file = run.path().join(RUN_JSON);
    let whole = std::fs::read(&file).unwrap();
    let is_kept = |bytes: &[u8]| {
        std::fs::write(&file, bytes).unwrap();
        age(&file);
        match RunFolder::claim(folder.path(), &request("job")) {
            // A flipped bit may be in the name of the checksum, or between the words.
            Ok((claimed, claim)) => claim == Claim::Joined && claimed == run,
            Err(_) => std::fs::read(&file).unwrap() == bytes,
        }
    };
    for end in 1..whole.len() {
        assert!(is_kept(&whole[..end]), "cut at {end}");
    }
    for bit in 0..whole.len() * 8 {
        let mut damaged = whole.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(is_kept(&damaged), "bit {bit}");
    }
}

#[test]
fn test_a_run_json_without_a_checksum_is_an_older_ones() {
    let folder = tempfile::tempdir().unwrap();
    let run = run(folder.path());
    let file = run.path().join(RUN_JSON);
    assert!(std::fs::read_to_string(&file).unwrap().contains("crc32c"));
    std::fs::write(&file, serde_json::to_vec(run.run()).unwrap()).unwrap();
    assert_eq!(RunFolder::claim(folder.path(), &request("job")).unwrap(), (run, Claim::Joined));
}

#[test]
fn test_a_newer_run_json_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let run = run(folder.path());
    let file = run.path().join(RUN_JSON);
    std::fs::write(&file, r#"{"version": 2, "something": "new"}"#).unwrap();
    let error = RunFolder::claim(folder.path(), &request("job")).unwrap_err();
    assert!(error.to_string().contains("upgrade metrana"), "{error}");
}

#[test]
fn test_a_refused_run_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let run = run(folder.path());
    writer(&run).withdraw().unwrap();
    let path = run.path().to_owned();
    run.withdraw().unwrap();
    assert!(!path.exists());
    let again = self::run(folder.path());
    let other = writer(&again);
    again.clone().withdraw().unwrap();
    assert!(again.path().join(RUN_JSON).exists(), "another writer has joined");
    drop(other);
}
