//! What earlier writers of a run left, when the next one opens it.

use std::path::Path;

use crate::closing;
use crate::config::{EngineConfig, MESSAGE_OVERHEAD_BYTES};
use crate::platform;
use crate::recovery::{self, RecoveryOptions, RingOutcome, recover_ring};
use crate::run_folder::{
    Claim, Liveness, RunFolder, RunFolderError, WriterEntry, WriterInfo, WriterLock,
};
use crate::seal::SealSettings;
use crate::spool::CursorSet;

/// What became of the dead writers of a run, for a log that begins later.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// By number.
    pub recovered: Vec<(u32, RingOutcome)>,
    /// Where those stood that somebody else delivers right now: their own cursors need not be there
    /// yet.
    pub cursors: CursorSet,
    /// For the user.
    pub problems: Vec<String>,
}

/// Seals what dead writers of the run left in their rings and finds out how far they had got, so
/// that this one's steps go on from there. What does not work is told, never fatal: the data stays
/// for whoever delivers it.
pub(crate) fn recover_dead(config: &EngineConfig, run_folder: &RunFolder, claim: Claim) -> Found {
    let mut found = Found::default();
    let writers = match run_folder.writers() {
        Ok(writers) => writers,
        Err(error) => {
            found.problems.push(error.to_string());
            return found;
        }
    };
    for entry in writers {
        let Some(info) = &entry.info else {
            // One that has just begun has nothing to say yet.
            if let Some(problem) = entry.problem.filter(|_| entry.is_undelivered) {
                let number = entry.number;
                found.problems.push(format!("steps of writer {number} are not known: {problem}"));
            }
            continue;
        };
        if info.ended.is_some() && run_folder.has_cursors(entry.number) {
            continue;
        }
        match entry.liveness {
            Liveness::Dead => {
                if let Err(problem) = recover_writer(config, &entry, info, &mut found) {
                    found.problems.push(format!("writer {}: {problem}", entry.number));
                }
            }
            // Its lock is taken, but nobody logs to it: it is being delivered, or it is one of ours
            // that a disk keeps from ending.
            Liveness::Live
                if closing::is_ending(info.writer_id)
                    || !platform::is_running(info.pid, info.opened_at_ms) =>
            {
                look(&entry.path, info, &mut found);
            }
            // Nothing here tells whether another machine's writer lives, but the job that is gone
            // on with was there before.
            Liveness::Foreign if claim == Claim::Resumed => look(&entry.path, info, &mut found),
            Liveness::Live | Liveness::Foreign => {}
        }
    }
    found
}

/// Somebody else has the writer's lock, and how long is not known: what it left is read as it is.
fn look(path: &Path, info: &WriterInfo, found: &mut Found) {
    let (cursors, problems) = recovery::look(path, info);
    found.cursors.merge(cursors);
    found.problems.extend(problems);
}

fn recover_writer(
    config: &EngineConfig,
    entry: &WriterEntry,
    info: &WriterInfo,
    found: &mut Found,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut lock = match WriterLock::take(&entry.path, false) {
        Err(RunFolderError::WriterLives(_)) => {
            look(&entry.path, info, found);
            return Ok(());
        }
        // Delivered and gone since it was listed: its cursors are there.
        Err(_) if !entry.path.exists() => return Ok(()),
        taken => taken?,
    };
    let report = recover_ring(&mut lock, &recovery_options(config))?;
    found.recovered.push((entry.number, report.ring));
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
