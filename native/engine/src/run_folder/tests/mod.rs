//! What a run's folder holds, and what its tests share.

mod claims;
mod writers;

use super::*;
use crate::types::WriterId;

const NAMES: RunNames<'_> = RunNames {
    destination: "local",
    workspace_name: "default",
    project_name: "default",
    run_name: "run",
};

fn request(orchestration_id: &str) -> RunRequest<'_> {
    RunRequest {
        names: NAMES,
        experiment_name: "exp",
        orchestration_id,
        resume: ResumeStrategy::Never,
        run_id: None,
    }
}

fn run(data_dir: &Path) -> RunFolder {
    RunFolder::claim(data_dir, &request("job")).unwrap().0
}

fn info(number: u32) -> WriterInfo {
    WriterInfo {
        version: 1,
        writer_id: WriterId([number as u8; 16]),
        run_id: RunId([1; 16]),
        number,
        logger_id: "0".to_owned(),
        host: "host".to_owned(),
        pid: 17,
        machine_id: platform::machine_id(),
        boot_id: platform::boot_id(),
        ring: None,
        ring_capacity: 4096,
        ring_device: None,
        sender: SenderKind::None,
        client_version: "0.1.0".to_owned(),
        opened_at_ms: 5,
        options: WriterOptions::default(),
        ended: None,
        last_seq: None,
        acked: None,
    }
}

/// A writer that wrote who it is.
fn writer(run: &RunFolder) -> WriterFolder {
    let writer = run.claim_writer().unwrap();
    writer.write_info(&info(writer.number())).unwrap();
    writer
}

#[test]
fn test_folder_name_is_the_hash_of_the_names() {
    // printf 'local\0default\0default\0run' | sha256sum | cut -c1-32
    assert_eq!(NAMES.folder_name(), "6cdd4f0052003625e40e3bd81b837226");
    let other = RunNames { project_name: "default\u{0}run", run_name: "", ..NAMES };
    assert_eq!(other.folder_name().len(), 32);
    assert_ne!(RunNames { run_name: "Run", ..NAMES }.folder_name(), NAMES.folder_name());
}

#[test]
fn test_run_json_and_writer_json_are_these_texts() {
    let run = RunInfo {
        version: 1,
        run_id: RunId([0xab; 16]),
        destination: "local".to_owned(),
        workspace_name: "w".to_owned(),
        project_name: "p".to_owned(),
        run_name: "r".to_owned(),
        experiment_name: String::new(),
        orchestration_id: "job".to_owned(),
        created_at_ms: 7,
        machine_id: None,
    };
    assert_eq!(
        serde_json::to_string(&run).unwrap(),
        r#"{"version":1,"run_id":"abababababababababababababababab","destination":"local","workspace_name":"w","project_name":"p","run_name":"r","experiment_name":"","orchestration_id":"job","created_at_ms":7,"machine_id":null}"#
    );
    let writer = WriterInfo {
        machine_id: Some("m".to_owned()),
        boot_id: Some("b".to_owned()),
        ring: Some("/dev/shm/metrana-x".into()),
        ended: Some(WriterEnd::Closed),
        ..info(3)
    };
    let text = serde_json::to_string(&writer).unwrap();
    assert_eq!(
        text,
        r#"{"version":1,"writer_id":"03030303030303030303030303030303","run_id":"01010101010101010101010101010101","number":3,"logger_id":"0","host":"host","pid":17,"machine_id":"m","boot_id":"b","ring":"/dev/shm/metrana-x","ring_capacity":4096,"ring_device":null,"sender":"none","client_version":"0.1.0","opened_at_ms":5,"options":{"experiment_name":"","create_project_if_missing":false,"resume_strategy":""},"ended":"closed"}"#
    );
    assert_eq!(serde_json::from_str::<WriterInfo>(&text).unwrap(), writer);
}

/// As if it had last been changed an hour ago.
fn age(path: &Path) {
    let then = std::time::SystemTime::now() - Duration::from_secs(3600);
    std::fs::File::open(path).unwrap().set_modified(then).unwrap();
}
