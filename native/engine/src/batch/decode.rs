//! Turns points payloads back into columns.
//!
//! Every length is checked against the payload or the format's limits before anything is allocated
//! for it: the most a hostile payload can make this take is what 1,000,000 points take.

use super::columns::{Range, max_column_bytes, read_deltas, read_runs};
use super::error::DecodeError;
use super::points::PointsSummary;
use super::section::{SECOND_ENCODING, SectionReader};
use super::values::{f32s, f64s, widen};
use super::varint::Reader;
use super::{BatchInfo, read_header, series_flags};
use crate::types::{
    BatchKind, MAX_BATCH_POINTS, MAX_ENVIRONMENT_STEP, MAX_EPISODE, MAX_ML_STEP, MAX_RL_STEP,
    UNUSED,
};

/// Most bytes of an entry of the series section.
const MAX_SERIES_BYTES: usize = 14;
/// Most bytes of a count or an ordinal.
const MAX_COUNT_BYTES: usize = 3;

/// Points as columns of equal length, in the batch's order: grouped by series, and in the order in
/// which they were logged inside it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PointColumns {
    /// Writer-local metric number.
    pub metric_no: Vec<u32>,
    /// Writer-local environment number, 0: none.
    pub env_no: Vec<u32>,
    /// −1: unused.
    pub rl_step: Vec<i64>,
    /// −1: unused.
    pub episode: Vec<i64>,
    /// −1: unused.
    pub step: Vec<i64>,
    /// Unix milliseconds.
    pub timestamp_ms: Vec<i64>,
    /// The value, exact: NaN payloads and the sign of zero included.
    pub value: Vec<f64>,
    /// 1: logged by `log_distributed`.
    pub distributed: Vec<u8>,
    /// 1: not above the writer's greatest position of the series when it was logged.
    pub rewound: Vec<u8>,
    /// How many earlier points of the batch and series lie at the same position.
    pub ordinal: Vec<u16>,
}

impl PointColumns {
    /// Points.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.value.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.value.is_empty()
    }

    /// Forgets the points behind the first `len`.
    pub fn truncate(&mut self, len: usize) {
        self.metric_no.truncate(len);
        self.env_no.truncate(len);
        self.rl_step.truncate(len);
        self.episode.truncate(len);
        self.step.truncate(len);
        self.timestamp_ms.truncate(len);
        self.value.truncate(len);
        self.distributed.truncate(len);
        self.rewound.truncate(len);
        self.ordinal.truncate(len);
    }

    pub(super) fn reserve(&mut self, additional: usize) {
        self.metric_no.reserve(additional);
        self.env_no.reserve(additional);
        self.rl_step.reserve(additional);
        self.episode.reserve(additional);
        self.step.reserve(additional);
        self.timestamp_ms.reserve(additional);
        self.value.reserve(additional);
        self.distributed.reserve(additional);
        self.rewound.reserve(additional);
        self.ordinal.reserve(additional);
    }
}

/// Appends the points of `payload` to `out`.
///
/// # Errors
///
/// Any [`DecodeError`]; `out` is then unchanged.
pub fn decode_points(payload: &[u8], out: &mut PointColumns) -> Result<PointsSummary, DecodeError> {
    PointsDecoder::new().decode(payload, out)
}

/// Decodes payload after payload with the same buffers.
#[derive(Debug, Default)]
pub struct PointsDecoder {
    series: Vec<Series>,
    sections: SectionReader,
    column: Vec<u8>,
    /// Planes of the value groups, group after group.
    planes: [[Vec<u8>; f64s::PLANES]; GROUPS],
}

/// Value groups: f32 plain, f32 differences, f64 plain, f64 differences.
const GROUPS: usize = 4;

/// An entry of the series section.
#[derive(Clone, Copy, Debug)]
struct Series {
    metric: u32,
    env: u32,
    count: u32,
    flags: u8,
}

impl Series {
    const fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Which of the value groups it is in.
    const fn group(self) -> usize {
        match (self.has(series_flags::WIDE), self.has(series_flags::DIFFERENCES)) {
            (false, false) => 0,
            (false, true) => 1,
            (true, false) => 2,
            (true, true) => 3,
        }
    }
}

/// Refuses coordinates that are in range each, but not together: a store that packs them into one
/// number would take them for others.
fn check_positions(rl_steps: &[i64], episodes: &[i64], steps: &[i64]) -> Result<(), DecodeError> {
    let (mut is_above, mut is_bare) = (false, false);
    for ((rl_step, episode), step) in rl_steps.iter().zip(episodes).zip(steps) {
        is_above |= *step > MAX_ENVIRONMENT_STEP && *episode != UNUSED;
        is_bare |= *step != UNUSED && *episode == UNUSED && *rl_step != UNUSED;
    }
    if is_above {
        return Err(DecodeError::Limit("a step of an episode"));
    }
    if is_bare {
        return Err(DecodeError::Malformed("a step with an rl_step has no episode"));
    }
    Ok(())
}

impl PointsDecoder {
    /// A decoder without buffers yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends the points of `payload` to `out`.
    ///
    /// # Errors
    ///
    /// Any [`DecodeError`]; `out` is then unchanged.
    pub fn decode(
        &mut self,
        payload: &[u8],
        out: &mut PointColumns,
    ) -> Result<PointsSummary, DecodeError> {
        let before = out.len();
        self.append(payload, out).inspect_err(|_| out.truncate(before))
    }

    fn append(
        &mut self,
        payload: &[u8],
        out: &mut PointColumns,
    ) -> Result<PointsSummary, DecodeError> {
        let mut reader = Reader::new(payload);
        let info = read_header(&mut reader)?;
        if info.kind != BatchKind::Points {
            return Err(DecodeError::Malformed("this is no points payload"));
        }
        let points = point_count(&info)?;
        self.read_series(&mut reader, points)?;
        out.reserve(points);
        let begin = out.step.len();
        self.append_keys(out);
        self.read_position(&mut reader, points, MAX_RL_STEP, &mut out.rl_step)?;
        self.read_position(&mut reader, points, MAX_EPISODE, &mut out.episode)?;
        self.read_position(&mut reader, points, MAX_ML_STEP, &mut out.step)?;
        check_positions(&out.rl_step[begin..], &out.episode[begin..], &out.step[begin..])?;
        self.read_times(&mut reader, points, &mut out.timestamp_ms)?;
        self.read_rewound(&mut reader, points, &mut out.rewound)?;
        self.read_ordinals(&mut reader, points, &mut out.ordinal)?;
        self.read_values(&mut reader, &mut out.value)?;
        reader.finish("bytes follow the last section")?;
        Ok(PointsSummary { float_points: info.float_point_count, rl_points: info.rl_point_count })
    }

    fn read_series(&mut self, reader: &mut Reader<'_>, points: usize) -> Result<(), DecodeError> {
        const WHAT: &str = "the series section";
        // A series has a point at least.
        let count = reader.length(points, "the series count")?;
        let section = self.sections.read(reader, count * MAX_SERIES_BYTES, &mut self.column)?;
        let mut entries = Reader::new(plain(section)?);
        self.series.clear();
        self.series.reserve(count);
        let (mut metric, mut env, mut total) = (0, 0, 0);
        for _ in 0..count {
            metric = number(metric, entries.zigzag(WHAT)?)?;
            env = number(env, entries.zigzag(WHAT)?)?;
            let points_left = points - total;
            let count = entries.length(points_left, "a series' point count")?;
            let flags = entries.u8(WHAT)?;
            if flags & !series_flags::ALL != 0 {
                return Err(DecodeError::Unknown { what: "series flags", found: flags });
            }
            if metric == 0 || count == 0 {
                return Err(DecodeError::Malformed("a series has no metric or no points"));
            }
            total += count;
            self.series.push(Series { metric, env, count: count as u32, flags });
        }
        entries.finish("the series section is longer than its series")?;
        if total == points {
            Ok(())
        } else {
            Err(DecodeError::Malformed("the series' points are not those of the header"))
        }
    }

    fn append_keys(&self, out: &mut PointColumns) {
        for series in &self.series {
            let count = series.count as usize;
            out.metric_no.extend(std::iter::repeat_n(series.metric, count));
            out.env_no.extend(std::iter::repeat_n(series.env, count));
            let distributed = u8::from(series.has(series_flags::DISTRIBUTED));
            out.distributed.extend(std::iter::repeat_n(distributed, count));
        }
    }

    fn read_position(
        &mut self,
        reader: &mut Reader<'_>,
        points: usize,
        max: i64,
        out: &mut Vec<i64>,
    ) -> Result<(), DecodeError> {
        let max_bytes = max_column_bytes(points);
        match self.sections.read(reader, max_bytes, &mut self.column)? {
            None => out.extend(std::iter::repeat_n(UNUSED, points)),
            Some(section) => {
                let counts = self.series.iter().map(|series| series.count);
                read_runs(plain(Some(section))?, counts, Range::Position(max), out)?;
            }
        }
        Ok(())
    }

    fn read_times(
        &mut self,
        reader: &mut Reader<'_>,
        points: usize,
        out: &mut Vec<i64>,
    ) -> Result<(), DecodeError> {
        let counts = self.series.iter().map(|series| series.count);
        match self.sections.read(reader, max_column_bytes(points), &mut self.column)? {
            Some((SECOND_ENCODING, bytes)) => read_deltas(bytes, counts, Range::Any, out),
            Some((_, bytes)) => read_runs(bytes, counts, Range::Any, out),
            None if points == 0 => Ok(()),
            None => Err(DecodeError::Malformed("points without timestamps")),
        }
    }

    fn read_rewound(
        &mut self,
        reader: &mut Reader<'_>,
        points: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), DecodeError> {
        const WHAT: &str = "the rewound section";
        // A run for each point and an empty one before each series' first.
        let max_bytes = points * (1 + MAX_COUNT_BYTES);
        let section = self.sections.read(reader, max_bytes, &mut self.column)?;
        let mut runs = Reader::new(plain(section)?);
        for series in &self.series {
            let mut left = series.count as usize;
            if !series.has(series_flags::REWOUND) {
                out.extend(std::iter::repeat_n(0, left));
                continue;
            }
            let (mut is_rewound, mut is_first) = (0, true);
            while left > 0 {
                let run = runs.length(left, WHAT)?;
                if run == 0 && !is_first {
                    return Err(DecodeError::Malformed("an empty run of rewound points"));
                }
                out.extend(std::iter::repeat_n(is_rewound, run));
                left -= run;
                (is_rewound, is_first) = (1 - is_rewound, false);
            }
        }
        runs.finish("the rewound section is longer than its series")
    }

    fn read_ordinals(
        &mut self,
        reader: &mut Reader<'_>,
        points: usize,
        out: &mut Vec<u16>,
    ) -> Result<(), DecodeError> {
        let section = self.sections.read(reader, points * MAX_COUNT_BYTES, &mut self.column)?;
        let mut ordinals = Reader::new(plain(section)?);
        for series in &self.series {
            if !series.has(series_flags::ORDINALS) {
                out.extend(std::iter::repeat_n(0, series.count as usize));
                continue;
            }
            for _ in 0..series.count {
                let ordinal = ordinals.varint("the ordinal section")?;
                out.push(u16::try_from(ordinal).map_err(|_| DecodeError::Limit("an ordinal"))?);
            }
        }
        ordinals.finish("the ordinal section is longer than its series")
    }

    fn read_values(
        &mut self,
        reader: &mut Reader<'_>,
        out: &mut Vec<f64>,
    ) -> Result<(), DecodeError> {
        let mut points = [0; GROUPS];
        for series in &self.series {
            points[series.group()] += series.count as usize;
        }
        for (group, (planes, points)) in self.planes.iter_mut().zip(points).enumerate() {
            let planes = &mut planes[..if group < 2 { f32s::PLANES } else { f64s::PLANES }];
            for plane in planes {
                plane.clear();
                // A group without points has no sections.
                if points > 0 {
                    read_plane(&mut self.sections, reader, points, &mut self.column, plane)?;
                }
            }
        }
        self.append_values(out);
        Ok(())
    }

    fn append_values(&self, out: &mut Vec<f64>) {
        let mut ends = [0; GROUPS];
        for series in &self.series {
            let group = series.group();
            let range = ends[group]..ends[group] + series.count as usize;
            ends[group] = range.end;
            let planes = &self.planes[group];
            let narrow = |bits| f64::from_bits(widen(bits));
            match group {
                0 => out.extend(f32s::join(planes, range).map(|word| narrow(f32s::plain(word)))),
                1 => out.extend(f32s::undo_differences(f32s::join(planes, range)).map(narrow)),
                2 => {
                    let words = f64s::join(planes, range);
                    out.extend(words.map(|word| f64::from_bits(f64s::plain(word))));
                }
                _ => {
                    let words = f64s::undo_differences(f64s::join(planes, range));
                    out.extend(words.map(f64::from_bits));
                }
            }
        }
    }
}

/// The header's points, if a batch may have as many.
fn point_count(info: &BatchInfo) -> Result<usize, DecodeError> {
    info.float_point_count
        .checked_add(info.rl_point_count)
        .filter(|points| *points <= MAX_BATCH_POINTS as u64)
        .map(|points| points as usize)
        .ok_or(DecodeError::Limit("the point count"))
}

/// A number as the difference to the one before.
fn number(before: u32, delta: i64) -> Result<u32, DecodeError> {
    i64::from(before)
        .checked_add(delta)
        .and_then(|number| u32::try_from(number).ok())
        .ok_or(DecodeError::Limit("a metric's or environment's number"))
}

/// The bytes of a section that has one encoding and may be absent.
fn plain(section: Option<(u8, &[u8])>) -> Result<&[u8], DecodeError> {
    match section {
        None => Ok(&[]),
        Some((0, bytes)) => Ok(bytes),
        Some(_) => Err(DecodeError::Malformed("a section has the timestamps' codec")),
    }
}

/// Reads a byte plane of `points` bytes into `plane`.
fn read_plane(
    sections: &mut SectionReader,
    reader: &mut Reader<'_>,
    points: usize,
    buffer: &mut Vec<u8>,
    plane: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    match sections.read(reader, points, buffer)? {
        // Absent means zeros.
        None => plane.resize(points, 0),
        section => plane.extend_from_slice(plain(section)?),
    }
    if plane.len() == points {
        Ok(())
    } else {
        Err(DecodeError::Malformed("a byte plane is not as long as its column"))
    }
}
