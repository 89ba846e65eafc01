//! What earlier writers of a run left, when the next one opens it.

use std::path::Path;

use crate::config::{EngineConfig, MESSAGE_OVERHEAD_BYTES};
use crate::recovery::{RecoveryOptions, cursors_of, recover};
use crate::run_folder::{Liveness, RunFolder, RunFolderError, WriterLock};
use crate::seal::SealSettings;

/// Seals what dead writers of the run left in their rings and finds out how far they had got, so
/// that this one's steps go on from there. What does not work is told, never fatal: the data stays
/// for whoever delivers it.
pub(crate) fn recover_dead(config: &EngineConfig, run_folder: &RunFolder) -> Vec<String> {
    let writers = match run_folder.writers() {
        Ok(writers) => writers,
        Err(error) => return vec![error.to_string()],
    };
    let mut problems = Vec::new();
    for entry in writers.into_iter().filter(|entry| entry.liveness == Liveness::Dead) {
        let has_ended = entry.info.is_some_and(|info| info.ended.is_some());
        if has_ended && run_folder.has_cursors(entry.number) {
            continue;
        }
        if let Err(problem) = recover_writer(config, run_folder, &entry.path, &mut problems) {
            problems.push(format!("writer {}: {problem}", entry.number));
        }
    }
    problems
}

fn recover_writer(
    config: &EngineConfig,
    run_folder: &RunFolder,
    path: &Path,
    problems: &mut Vec<String>,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut lock = match WriterLock::take(path, false) {
        // Somebody else is at it.
        Err(RunFolderError::WriterLives(_)) => return Ok(()),
        taken => taken?,
    };
    problems.extend(recover(&mut lock, &recovery_options(config))?.problems);
    let (mut cursors, unread) = cursors_of(&lock)?;
    problems.extend(unread);
    // What it wrote before it deleted segments is in there, and the others' do no harm.
    cursors.merge(run_folder.cursors().0);
    lock.write_cursors(&cursors)?;
    Ok(())
}

pub(crate) fn recovery_options(config: &EngineConfig) -> RecoveryOptions {
    RecoveryOptions { spool: config.spool.options.clone(), seal: seal_settings(config) }
}

pub(crate) fn seal_settings(config: &EngineConfig) -> SealSettings {
    SealSettings {
        compression: config.batch.compression,
        payload_bytes: config.batch.max_msg_size - MESSAGE_OVERHEAD_BYTES,
    }
}
