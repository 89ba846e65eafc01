//! Rows of the table against a plain stable sort of all points.

use proptest::prelude::*;

use super::*;

/// A point of the table: what it is sorted by, and then all the rest.
type Row = ((u32, u32, u32, i64, i64, i64), (i64, u64, u32, u32, u64, u16, u8));

/// A batch: its writer, and segments by local metric, environment, first step and count.
type Written = (u32, Vec<(u32, u32, i64, u32)>);

fn map(writer_no: u32, seq: u64) -> NumberMap {
    // Numbers fall as the local ones rise, and two writers share a run and its metrics.
    let nos: Vec<u32> = (0..5).map(|local| if local == 0 { 0 } else { 50 - local }).collect();
    NumberMap {
        run_no: 1 + writer_no / 2,
        writer_no,
        seq,
        logger_no: 9,
        metric_nos: nos.clone(),
        env_nos: nos,
    }
}

fn payload(segments: &[(u32, u32, i64, u32)]) -> Vec<u8> {
    let mut encoder = PointsEncoder::new();
    for &(metric, env, step, count) in segments {
        let segment = if env == 0 {
            ml_steps(step, count)
        } else {
            let start = Position { rl_step: step / 3, episode: step / 2, step };
            Segment { start, axis: Axis::Step, count, rewound: step == 1 }
        };
        let key = SeriesKey { distributed: metric == 2, ..key(metric, env) };
        let values: Vec<f64> = (0..count).map(|index| f64::from(index) + 0.5).collect();
        let times = Timestamps::All(step);
        encoder.push(key, &segment, times, Values::F64(&values), env != 0).unwrap();
    }
    encode(&mut encoder, Compression::Zstd)
}

/// All rows in the order of the batches.
fn reference(batches: &[(Vec<u8>, NumberMap)]) -> Vec<Row> {
    let mut rows = Vec::new();
    for (payload, map) in batches {
        let points = decode(payload).unwrap();
        for index in 0..points.len() {
            let env = points.env_no[index] as usize;
            let position = (points.rl_step[index], points.episode[index], points.step[index]);
            rows.push((
                (
                    map.run_no,
                    map.metric_nos[points.metric_no[index] as usize],
                    if env == 0 { 0 } else { map.env_nos[env] },
                    position.0,
                    position.1,
                    position.2,
                ),
                (
                    points.timestamp_ms[index],
                    points.value[index].to_bits(),
                    u32::from(points.distributed[index]) * map.logger_no,
                    map.writer_no,
                    map.seq,
                    points.ordinal[index],
                    points.rewound[index],
                ),
            ));
        }
    }
    rows
}

fn listed(rows: &TableRows) -> Vec<Row> {
    let row = |index: usize| {
        (
            (
                rows.run_no[index],
                rows.metric_no[index],
                rows.env_no[index],
                rows.rl_step[index],
                rows.episode[index],
                rows.step[index],
            ),
            (
                rows.timestamp_ms[index],
                rows.value[index].to_bits(),
                rows.logger_no[index],
                rows.writer_no[index],
                rows.seq[index],
                rows.ordinal[index],
                rows.rewound[index],
            ),
        )
    };
    (0..rows.value.len()).map(row).collect()
}

fn of(batches: &[(Vec<u8>, NumberMap)]) -> Result<TableRows, RowsError> {
    let borrowed: Vec<_> = batches.iter().map(|(payload, map)| (&**payload, map)).collect();
    table_rows(&borrowed)
}

proptest! {
    #[test]
    fn rows_are_those_of_a_stable_sort(
        written in prop::collection::vec(
            (1_u32..4, prop::collection::vec((1_u32..5, 0_u32..4, 0_i64..6, 1_u32..5), 1..6)),
            0..6,
        ),
    ) {
        let written: Vec<Written> = written;
        let batches: Vec<_> = written
            .iter()
            .enumerate()
            .map(|(index, (writer_no, segments))| {
                (payload(segments), map(*writer_no, index as u64 + 1))
            })
            .collect();
        let mut expected = reference(&batches);
        expected.sort_by_key(|row| row.0);
        prop_assert_eq!(listed(&of(&batches).unwrap()), expected);
    }
}

#[test]
fn what_is_not_declared_is_named() {
    let batch = |metric, env| vec![(payload(&[(metric, env, 0, 1)]), map(1, 7))];
    let undeclared = |kind, number| Err(RowsError::Undeclared { seq: 7, kind, number });
    assert_eq!(of(&batch(9, 0)), undeclared("metric", 9));
    assert_eq!(of(&batch(1, 9)), undeclared("environment", 9));
}

#[test]
fn a_payload_that_promises_too_much_is_refused() {
    let mut bytes = payload(&[(1, 0, 0, 1)]);
    // The header's count of points, where there was a 1.
    bytes.splice(4..5, [0xff; 9].into_iter().chain([1]));
    let batches = vec![(bytes, map(1, 7))];
    assert!(matches!(of(&batches), Err(RowsError::Payload { seq: 7, .. })));
}
