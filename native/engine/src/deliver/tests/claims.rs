//! Servers that say they have more than there is.

use super::*;

#[test]
fn test_a_server_that_says_it_has_more_than_there_is_is_not_believed() {
    let data_dir = tempfile::tempdir().unwrap();
    let run = run_folder(data_dir.path(), "local", "run");
    for claimed in [21, u64::MAX] {
        let info = dead(&run, 20);
        let server = MemoryServer::with_script(move |event| match event {
            Event::Message { attempt: 1, index: 1, .. } => Action::Claim(Seq(claimed)),
            _ => Action::Serve,
        });
        let delivered = deliver_first(&run, &options(&server, "local")).unwrap();
        assert!(delivered.is_removed);
        assert_eq!(server.applied(info.writer_id), seqs(1..=20));
        assert_eq!(server.records().hellos.len(), 2, "its stream is given up");
    }
}

#[test]
fn test_a_server_that_keeps_to_what_it_has_more_is_believed() {
    // As after a power cut, which took batches from the spool that had been sent.
    let data_dir = tempfile::tempdir().unwrap();
    let run = run_folder(data_dir.path(), "local", "run");
    let info = dead(&run, 20);
    let (folder, kept) = (run.writers().unwrap()[0].path.clone(), data_dir.path().join("kept"));
    std::fs::create_dir(&kept).unwrap();
    for file in std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap()) {
        std::fs::copy(file.path(), kept.join(file.file_name())).unwrap();
    }
    let server = MemoryServer::new();
    deliver_first(&run, &options(&server, "local")).unwrap();
    assert_eq!(server.applied(info.writer_id), seqs(1..=20));
    std::fs::rename(&kept, &folder).unwrap();
    server.script(|event| match event {
        Event::Message { index: 1, .. } => Action::Claim(Seq(25)),
        _ => Action::Serve,
    });
    let delivered = deliver_first(&run, &options(&server, "local")).unwrap();
    assert!(delivered.is_removed);
    assert_eq!(server.applied(info.writer_id), seqs(1..=20));
    assert_eq!(server.records().hellos.len(), 3, "once it is taken for a mistake");
}
