//! What a server has is deleted, and what later writers need of it is kept: the cursors.

use std::sync::atomic::Ordering;

use super::Drain;
use crate::run_folder;
use crate::spool::{CursorSet, EnvironmentCursor, SeriesCursor};
use crate::steps::EnvCursor;
use crate::types::{EnvNo, MetricNo, Position, Seq};

impl Drain {
    /// At the end: nothing of the spool is in the machine's memory alone any more, and the cursors are
    /// there. Blocks on the disk.
    pub fn force_to_disk(&mut self) {
        if let Err(problem) = self.write_cursors() {
            self.shared.report(problem);
        }
        self.delete_acked();
        if let Err(error) = self.spool.sync() {
            self.shared.report(format!("the spool could not be forced to the disk: {error}"));
        }
    }

    /// Without a sender, whoever follows the spool says in it how far it is.
    pub(super) fn hear_follower(&self) {
        if self.sender.is_some() || !self.folder.place.is_kept() {
            return;
        }
        match run_folder::read_acked(self.folder.place.path()) {
            // It may have read a batch whose window is not whole in the spool yet. Nothing of that
            // may be deleted: it says where recovery goes on.
            Ok(acked) => self.shared.take_ack(acked.min(Seq(self.consumer.next_seq().0 - 1))),
            Err(error) => {
                self.shared.problems.lock().note(error.to_string());
            }
        }
    }

    /// Deletes what the server has. Before that the cursors are written: without the segments
    /// nobody could find them out.
    pub fn delete_acked(&mut self) {
        let acked = Seq(self.shared.acked.load(Ordering::Acquire));
        if !self.spool.has_acked_segments(acked) || !self.folder.place.is_kept() {
            return;
        }
        if let Err(problem) = self.write_cursors() {
            return self.shared.note(problem);
        }
        if let Err(error) = self.spool.delete_acked(acked) {
            self.shared.note(error.to_string());
        }
        self.shared.spooled_bytes.store(self.spool.bytes(), Ordering::Relaxed);
    }

    /// Writes where this writer's series and environments stand, unless its folder is not there:
    /// whoever finds the spool finds them out.
    fn write_cursors(&self) -> Result<(), String> {
        let Some(cursors) = self.cursors() else { return Ok(()) };
        self.folder
            .place
            .write_cursors(&cursors, self.spool.files())
            .map_err(|error| error.to_string())
    }

    /// Where this writer's series and environments stand; `None`: its folder is not there.
    pub fn cursors(&self) -> Option<CursorSet> {
        if !self.folder.place.is_kept() {
            return None;
        }
        // Numbers under the lock, names after it.
        let (series, envs): (Vec<_>, Vec<_>) = {
            let intake = self.shared.intake.lock();
            (intake.steps.own_series().collect(), intake.steps.own_envs().collect())
        };
        Some(CursorSet {
            series: series.into_iter().filter_map(|own| self.series_cursor(own)).collect(),
            environments: envs.into_iter().filter_map(|own| self.env_cursor(own)).collect(),
        })
    }

    fn series_cursor(&self, own: (MetricNo, EnvNo, Position)) -> Option<SeriesCursor> {
        let (metric, env, position) = own;
        let (scale, name, labels) = self.sealer.declarations.metric_parts(metric)?;
        let env_id = match env {
            EnvNo::NONE => None,
            env => Some(self.sealer.declarations.env_id(env)?),
        };
        Some(SeriesCursor { name, scale, labels, env_id, position })
    }

    fn env_cursor(&self, (env, cursor): (EnvNo, EnvCursor)) -> Option<EnvironmentCursor> {
        let EnvCursor { rl_step, episode, ended_episode } = cursor;
        let env_id = self.sealer.declarations.env_id(env)?;
        Some(EnvironmentCursor { env_id, rl_step, episode, ended_episode })
    }
}
