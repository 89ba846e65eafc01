//! Where a dead writer's series and environments stood: what it would have written to its cursors
//! had it been closed.
//!
//! Read from the batches that are still in its spool. An offline run that goes on after a crash takes its next steps from this.

use std::path::Path;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::batch::{DecodeError, PointColumns, decode_points};
use crate::declarations::{Declaration, decode_declarations};
use crate::record::{self, Record};
use crate::ring::records;
use crate::spool::{
    CursorSet, EnvironmentCursor, Frame, FrameKind, SeriesCursor, SpoolError, SpoolEvent,
    SpoolReader,
};
use crate::types::{Lsn, Position, Scale, Seq};

type Numbered<T> = HashMap<u32, T, FixedState>;
/// Scale, name, labels.
type Metric = (Scale, String, Vec<(String, String)>);

/// The greatest positions of a dead writer whose ring is sealed, as far as its spool tells, and what
/// could not be read of them. `first_seq` as in the report.
///
/// # Errors
///
/// When the spool cannot be read at all.
pub(super) fn of_spool(
    folder: &Path,
    first_seq: Seq,
) -> Result<(CursorSet, Vec<String>), SpoolError> {
    let mut reader = SpoolReader::open(folder, first_seq)?;
    reader.writer_has_ended();
    let mut found = Positions::default();
    let problems = found.read(&mut reader)?;
    Ok((found.cursors(), problems))
}

/// The same while somebody else has the writer's lock, so that a frame may be half written yet:
/// `window` is what the ring held, from `start` on, before the spool is read.
///
/// # Errors
///
/// When the spool cannot be read at all.
pub(super) fn of_spool_and_ring(
    folder: &Path,
    window: &[u64],
    start: Lsn,
) -> Result<(CursorSet, Vec<String>), SpoolError> {
    let mut found = Positions::default();
    let mut problems = found.read(&mut SpoolReader::open_oldest(folder)?)?;
    for raw in records(window, start) {
        let record = raw.map_err(|bad| bad.to_string()).and_then(|raw| {
            record::read(&raw)
                .map_err(|bad| bad.to_string())
                .and_then(|record| found.take_record(&record).map_err(|error| error.to_string()))
        });
        problems.extend(record.err());
    }
    Ok((found.cursors(), problems))
}

#[derive(Default)]
struct Positions {
    metrics: Numbered<Metric>,
    envs: Numbered<String>,
    series: HashMap<(u32, u32), Position, FixedState>,
    columns: PointColumns,
}

impl Positions {
    /// Takes note of all frames, and says what could not be read.
    fn read(&mut self, reader: &mut SpoolReader) -> Result<Vec<String>, SpoolError> {
        let mut problems = Vec::new();
        while let Some(event) = reader.next_event()? {
            match event {
                SpoolEvent::Frame(frame) => problems.extend(self.take(&frame)),
                SpoolEvent::Damage(damage) => problems.push(damage.message),
            }
        }
        Ok(problems)
    }

    /// Takes note of a frame, or says why it cannot.
    fn take(&mut self, frame: &Frame) -> Option<String> {
        let taken = match frame.kind {
            FrameKind::Declarations => decode_declarations(&frame.payload)
                .map(|all| all.into_iter().for_each(|one| self.declare(one))),
            FrameKind::Points => self.points(&frame.payload),
            FrameKind::Attributes | FrameKind::Renderings => Ok(()),
        };
        taken.err().map(|error| format!("batch {}: {error}", frame.seq))
    }

    fn declare(&mut self, declaration: Declaration) {
        match declaration {
            Declaration::Metric { no, scale, name, labels } => {
                self.metrics.insert(no.0, (scale, name, labels));
            }
            Declaration::Environment { no, env_id } => {
                self.envs.insert(no.0, env_id);
            }
        }
    }

    fn points(&mut self, payload: &[u8]) -> Result<(), DecodeError> {
        self.columns.truncate(0);
        decode_points(payload, &mut self.columns)?;
        let columns = &self.columns;
        for at in 0..columns.metric_no.len() {
            let position = Position {
                rl_step: columns.rl_step[at],
                episode: columns.episode[at],
                step: columns.step[at],
            };
            let series = (columns.metric_no[at], columns.env_no[at]);
            note(&mut self.series, series, position);
        }
        Ok(())
    }

    /// Takes note of a record of the ring.
    fn take_record(&mut self, record: &Record<'_>) -> Result<(), DecodeError> {
        match record {
            Record::DeclareMetric(bytes) | Record::DeclareEnvironment(bytes) => {
                self.declare(Declaration::decode(bytes)?.0);
            }
            Record::Point { metric, step, .. } => {
                let of_scale = |metric: &Metric| metric.0 == Scale::Episode;
                let position = if self.metrics.get(&metric.0).is_some_and(of_scale) {
                    Position { episode: *step, ..Position::NONE }
                } else {
                    Position { step: *step, ..Position::NONE }
                };
                note(&mut self.series, (metric.0, 0), position);
            }
            Record::Block(block) => {
                let metric = self.metrics.get(&block.metric.0);
                let episode_grows = metric.is_some_and(|metric| metric.0 == Scale::Episode);
                for segment in block.segments {
                    let last = i64::from(segment.count().max(1)) - 1;
                    let (episode, step) = if episode_grows {
                        (segment.episode + last, segment.step)
                    } else {
                        (segment.episode, segment.step + last)
                    };
                    let position = Position { rl_step: block.rl_step, episode, step };
                    note(&mut self.series, (block.metric.0, segment.env().0), position);
                }
            }
            Record::Attributes { .. } => {}
        }
        Ok(())
    }

    /// Series whose metric or environment was declared in a frame that is damaged have no name and
    /// are left out.
    fn cursors(self) -> CursorSet {
        let mut cursors = CursorSet::default();
        let mut environments: Numbered<EnvironmentCursor> = HashMap::default();
        // In the order of their numbers, which is that of their first points: whoever goes on gives
        // out numbers by it.
        let mut series: Vec<_> = self.series.into_iter().collect();
        series.sort_unstable_by_key(|(numbers, _)| *numbers);
        for ((metric, env), position) in series {
            let Some((scale, name, labels)) = self.metrics.get(&metric).cloned() else { continue };
            let env_id = self.envs.get(&env).cloned();
            if env != 0 {
                let Some(env_id) = &env_id else { continue };
                let environment =
                    environments.entry(env).or_insert_with(|| EnvironmentCursor::nowhere(env_id));
                go_on(environment, scale, position);
            }
            cursors.series.push(SeriesCursor { name, scale, labels, env_id, position });
        }
        let mut environments: Vec<_> = environments.into_iter().collect();
        environments.sort_unstable_by_key(|(env, _)| *env);
        cursors.environments.extend(environments.into_iter().map(|(_, environment)| environment));
        cursors
    }
}

fn note(
    series: &mut HashMap<(u32, u32), Position, FixedState>,
    numbers: (u32, u32),
    position: Position,
) {
    let greatest = series.entry(numbers).or_insert(position);
    *greatest = position.furthest(*greatest);
}

pub(super) fn go_on(environment: &mut EnvironmentCursor, scale: Scale, position: Position) {
    environment.rl_step = environment.rl_step.max(position.rl_step);
    environment.episode = environment.episode.max(position.episode);
    // An EPISODE point of an episode ends it.
    if scale == Scale::Episode {
        environment.ended_episode = environment.ended_episode.max(position.episode);
    }
}
