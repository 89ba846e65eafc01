//! What earlier writers of a run left, when the next one opens it.

use std::path::Path;

use crate::config::{EngineConfig, MESSAGE_OVERHEAD_BYTES};
use crate::recovery::{RecoveryOptions, RingOutcome, recover};
use crate::run_folder::{Liveness, RunFolder, RunFolderError, WriterLock};
use crate::seal::SealSettings;

/// What became of the dead writers of a run, for a log that begins later.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// By number.
    pub recovered: Vec<(u32, RingOutcome)>,
    /// For the user.
    pub problems: Vec<String>,
}

/// Seals what dead writers of the run left in their rings and finds out how far they had got, so
/// that this one's steps go on from there. What does not work is told, never fatal: the data stays
/// for whoever delivers it.
pub(crate) fn recover_dead(config: &EngineConfig, run_folder: &RunFolder) -> Found {
    let mut found = Found::default();
    let writers = match run_folder.writers() {
        Ok(writers) => writers,
        Err(error) => {
            found.problems.push(error.to_string());
            return found;
        }
    };
    for entry in writers.into_iter().filter(|entry| entry.liveness == Liveness::Dead) {
        let has_ended = entry.info.is_some_and(|info| info.ended.is_some());
        if has_ended && run_folder.has_cursors(entry.number) {
            continue;
        }
        if let Err(problem) = recover_writer(config, &entry.path, entry.number, &mut found) {
            found.problems.push(format!("writer {}: {problem}", entry.number));
        }
    }
    found
}

fn recover_writer(
    config: &EngineConfig,
    path: &Path,
    number: u32,
    found: &mut Found,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut lock = match WriterLock::take(path, false) {
        // Somebody else is at it.
        Err(RunFolderError::WriterLives(_)) => return Ok(()),
        taken => taken?,
    };
    let report = recover(&mut lock, &recovery_options(config))?;
    found.recovered.push((number, report.ring));
    found.problems.extend(report.problems);
    found.problems.extend(report.unknown_positions);
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
