//! Batches of any writers as rows of the points table, in the table's order.
//!
//! A batch is grouped by series and a series' points nearly always rise, so the order is found by
//! looking at runs of rows and most of it is copied run by run. A store that is given sorted rows
//! need not sort them, which is a third of what inserting costs it.

use super::{DecodeError, PointColumns, PointsDecoder, peek};
use crate::types::MAX_BATCH_POINTS;

/// The catalog's numbers for one batch: who wrote it, and what its local numbers stand for.
#[derive(Clone, Debug)]
pub struct NumberMap {
    /// Number of the run.
    pub run_no: u32,
    /// Number of the writer.
    pub writer_no: u32,
    /// The batch's sequence number.
    pub seq: u64,
    /// Number of the logger, for points of `log_distributed`; other points get 0.
    pub logger_no: u32,
    /// By local metric number; 0: undeclared.
    pub metric_nos: Vec<u32>,
    /// By local environment number; local number 0 is "none" and stays 0.
    pub env_nos: Vec<u32>,
}

impl NumberMap {
    fn metric(&self, local: u32) -> Result<u32, RowsError> {
        self.translate(&self.metric_nos, local, "metric")
    }

    fn env(&self, local: u32) -> Result<u32, RowsError> {
        if local == 0 { Ok(0) } else { self.translate(&self.env_nos, local, "environment") }
    }

    fn translate(&self, numbers: &[u32], local: u32, kind: &'static str) -> Result<u32, RowsError> {
        match numbers.get(local as usize) {
            Some(&number) if number != 0 => Ok(number),
            _ => Err(RowsError::Undeclared { seq: self.seq, kind, number: local }),
        }
    }
}

/// Why a batch could not be turned into rows of the table.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum RowsError {
    #[error("batch {seq}: {source}")]
    Payload { seq: u64, source: DecodeError },
    #[error("batch {seq} uses {kind} {number}, which was not declared")]
    Undeclared { seq: u64, kind: &'static str, number: u32 },
}

/// Rows of the points table as columns of equal length, sorted by run, metric, environment,
/// `rl_step`, episode, step; among equals in the order of the batches and of their points.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "the table's columns, see docs/decisions/002")]
pub struct TableRows {
    pub run_no: Vec<u32>,
    pub metric_no: Vec<u32>,
    pub env_no: Vec<u32>,
    pub rl_step: Vec<i64>,
    pub episode: Vec<i64>,
    pub step: Vec<i64>,
    pub timestamp_ms: Vec<i64>,
    pub value: Vec<f64>,
    pub logger_no: Vec<u32>,
    pub writer_no: Vec<u32>,
    pub seq: Vec<u64>,
    pub ordinal: Vec<u16>,
    pub rewound: Vec<u8>,
}

/// Rows of one series in one batch, consecutive in the decoded columns.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// Run, metric and environment, by the catalog's numbers.
    series: (u32, u32, u32),
    /// Index of the batch.
    batch: u32,
    start: u32,
    len: u32,
}

impl Run {
    const fn rows(self) -> std::ops::Range<usize> {
        self.start as usize..self.start as usize + self.len as usize
    }

    const fn last(self) -> usize {
        self.start as usize + self.len as usize - 1
    }
}

/// Decodes batches into rows of the table; all of them or none.
///
/// # Errors
///
/// [`RowsError`], which names the batch's seq.
pub fn table_rows(batches: &[(&[u8], &NumberMap)]) -> Result<TableRows, RowsError> {
    let mut points = PointColumns::default();
    // As much as one batch may have, whatever they say.
    let announced =
        batches.iter().fold(0_u64, |sum, (payload, _)| sum.saturating_add(announced(payload)));
    points.reserve(announced.min(MAX_BATCH_POINTS as u64) as usize);
    let mut decoder = PointsDecoder::new();
    let mut runs = Vec::new();
    for (index, (payload, map)) in batches.iter().enumerate() {
        let first = points.len();
        decoder
            .decode(payload, &mut points)
            .map_err(|source| RowsError::Payload { seq: map.seq, source })?;
        append_runs(&points, first, index as u32, map, &mut runs)?;
    }
    runs.sort_by_key(|run| run.series);
    let runs = in_order(&points, &runs);
    Ok(gather(&points, &runs, batches))
}

/// How many points a payload says that it has; decoding checks that.
fn announced(payload: &[u8]) -> u64 {
    peek(payload).map_or(0, |info| info.float_point_count.saturating_add(info.rl_point_count))
}

/// Finds the runs of the rows from `first` on.
fn append_runs(
    points: &PointColumns,
    first: usize,
    batch: u32,
    map: &NumberMap,
    runs: &mut Vec<Run>,
) -> Result<(), RowsError> {
    let (metrics, envs) = (&points.metric_no[first..], &points.env_no[first..]);
    let mut start = 0;
    while start < metrics.len() {
        let (metric, env) = (metrics[start], envs[start]);
        let is_same = |(&other, &other_env): (&u32, &u32)| other == metric && other_env == env;
        let same = metrics[start..].iter().zip(&envs[start..]).take_while(|pair| is_same(*pair));
        let len = same.count();
        let series = (map.run_no, map.metric(metric)?, map.env(env)?);
        runs.push(Run { series, batch, start: (first + start) as u32, len: len as u32 });
        start += len;
    }
    Ok(())
}

/// Puts the rows of each series in order; the runs are sorted by series.
fn in_order(points: &PointColumns, runs: &[Run]) -> Vec<Run> {
    let position = |row: usize| (points.rl_step[row], points.episode[row], points.step[row]);
    let rises = |run: &Run| {
        let rows = run.rows();
        // Column by column, so that the usual case is vectorised: one of them rises by rows.
        let constant = |column: &[i64]| column[rows.clone()].windows(2).all(|two| two[0] == two[1]);
        let grows = |column: &[i64]| column[rows.clone()].windows(2).all(|two| two[0] <= two[1]);
        (constant(&points.rl_step) && constant(&points.episode) && grows(&points.step))
            || rows.clone().skip(1).all(|row| position(row - 1) <= position(row))
    };
    let mut ordered = Vec::with_capacity(runs.len());
    for series in runs.chunk_by(|one, other| one.series == other.series) {
        let is_ordered = series.iter().all(rises)
            && series
                .windows(2)
                .all(|two| position(two[0].last()) <= position(two[1].rows().start));
        if is_ordered {
            ordered.extend_from_slice(series);
            continue;
        }
        // Rewound, or several writers: row by row.
        let first = ordered.len();
        for run in series {
            ordered.extend(run.rows().map(|row| Run { start: row as u32, len: 1, ..*run }));
        }
        ordered[first..].sort_by_key(|run| position(run.rows().start));
    }
    ordered
}

fn gather(points: &PointColumns, runs: &[Run], batches: &[(&[u8], &NumberMap)]) -> TableRows {
    let map = |run: &Run| batches[run.batch as usize].1;
    TableRows {
        run_no: repeated(points, runs, |run| run.series.0),
        metric_no: repeated(points, runs, |run| run.series.1),
        env_no: repeated(points, runs, |run| run.series.2),
        rl_step: copied(&points.rl_step, runs),
        episode: copied(&points.episode, runs),
        step: copied(&points.step, runs),
        timestamp_ms: copied(&points.timestamp_ms, runs),
        value: copied(&points.value, runs),
        logger_no: logger_nos(points, runs, batches),
        writer_no: repeated(points, runs, |run| map(run).writer_no),
        seq: repeated(points, runs, |run| map(run).seq),
        ordinal: copied(&points.ordinal, runs),
        rewound: copied(&points.rewound, runs),
    }
}

fn copied<T: Copy>(column: &[T], runs: &[Run]) -> Vec<T> {
    let mut out = Vec::with_capacity(column.len());
    for run in runs {
        out.extend_from_slice(&column[run.rows()]);
    }
    out
}

fn repeated<T: Copy>(points: &PointColumns, runs: &[Run], of: impl Fn(&Run) -> T) -> Vec<T> {
    let mut out = Vec::with_capacity(points.len());
    for run in runs {
        out.extend(std::iter::repeat_n(of(run), run.len as usize));
    }
    out
}

fn logger_nos(points: &PointColumns, runs: &[Run], batches: &[(&[u8], &NumberMap)]) -> Vec<u32> {
    let mut out = Vec::with_capacity(points.len());
    for run in runs {
        let logger_no = batches[run.batch as usize].1.logger_no;
        out.extend(points.distributed[run.rows()].iter().map(|flag| u32::from(*flag) * logger_no));
    }
    out
}
