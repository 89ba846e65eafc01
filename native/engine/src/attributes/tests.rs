//! Every operation and type, byte for byte, and what is refused.

use proptest::prelude::*;

use super::*;
use crate::batch::peek;

fn update(initial: bool, operation: AttributeOperation) -> AttributeUpdate {
    AttributeUpdate { initial, operation }
}

fn set(path: &str, value: AttributeValue) -> AttributeOperation {
    AttributeOperation::Set { path: path.to_owned(), value }
}

/// One of each operation and each type, and the bytes of version 1.
fn golden() -> Vec<(AttributeUpdate, &'static [u8])> {
    use AttributeValue as Value;
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    let of_env = |episode| AttributeOperation::SetEnvironment {
        env: EnvNo(300),
        episode,
        path: "p".to_owned(),
        value: Value::EmptyMapping,
    };
    let close = |status| AttributeOperation::Close { status, timestamp_ms: 1000 };
    vec![
        (update(true, set("a/b", Value::Null)), b"\x01\x01\x05\x03a/b\x00"),
        (update(false, set("b", Value::Bool(true))), b"\x01\x00\x04\x01b\x01\x01"),
        (update(false, set("i", Value::Int("-12".into()))), b"\x01\x00\x07\x01i\x02\x03-12"),
        (
            update(false, set("f", Value::Float(-0.5))),
            b"\x01\x00\x0b\x01f\x03\x00\x00\x00\x00\x00\x00\xe0\xbf",
        ),
        (update(false, set("t", Value::Text("é".into()))), b"\x01\x00\x06\x01t\x04\x02\xc3\xa9"),
        (
            update(false, set("d", Value::DateTime("2026-11-05T10:00:00Z".into()))),
            b"\x01\x00\x18\x01d\x05\x142026-11-05T10:00:00Z",
        ),
        (
            update(false, set("l", Value::TextList(texts(&["x", ""])))),
            b"\x01\x00\x07\x01l\x06\x02\x01x\x00",
        ),
        (update(false, set("e", Value::EmptyList)), b"\x01\x00\x03\x01e\x08"),
        (update(false, of_env(None)), b"\x02\x00\x06\xac\x02\x01\x01p\x07"),
        (update(false, of_env(Some(7))), b"\x02\x00\x06\xac\x02\x0e\x01p\x07"),
        (
            update(true, AttributeOperation::SetTags(texts(&["x", "y"]))),
            b"\x03\x01\x05\x02\x01x\x01y",
        ),
        (update(false, AttributeOperation::AddTags(texts(&["x"]))), b"\x04\x00\x03\x01\x01x"),
        (update(false, AttributeOperation::RemoveTags(texts(&[]))), b"\x05\x00\x01\x00"),
        (update(false, AttributeOperation::SetDescription("d".into())), b"\x06\x00\x02\x01d"),
        (update(false, close(CloseStatus::Finished)), b"\x07\x00\x03\x01\xd0\x0f"),
        (update(false, close(CloseStatus::Failed)), b"\x07\x00\x03\x02\xd0\x0f"),
    ]
}

fn payload(updates: &[AttributeUpdate]) -> Vec<u8> {
    let mut encoder = AttributesEncoder::new();
    for update in updates {
        encoder.push(update);
    }
    let bound = encoder.payload_bound();
    let mut out = Vec::new();
    encoder.encode(&mut out);
    assert!(out.len() <= bound && encoder.is_empty());
    out
}

#[test]
fn operations_have_the_documented_bytes() {
    for (update, bytes) in golden() {
        let mut out = Vec::new();
        update.encode(&mut out);
        assert_eq!(out, bytes, "{update:?}");
        // A ring record pads what it holds.
        out.push(0);
        assert_eq!(AttributeUpdate::decode(&out), Ok((update, bytes.len())));
    }
}

#[test]
fn payloads_have_the_documented_header() {
    let updates: Vec<_> = golden().into_iter().map(|(update, _)| update).collect();
    let out = payload(&updates);
    // 12 of the run, 2 of environments, and two close records that are not counted.
    assert_eq!(out[..7], [1, 0, 3, 0, 12, 2, 16]);
    assert_eq!(decode_attributes(&out), Ok(updates));
    let info = peek(&out).unwrap();
    assert_eq!((info.kind, info.attribute_count), (BatchKind::Attributes, 12));
    assert_eq!((info.env_attribute_count, info.float_point_count), (2, 0));
}

#[test]
fn encoded_updates_are_taken_as_they_are() {
    let (updates, bytes): (Vec<_>, Vec<_>) = golden().into_iter().unzip();
    let bytes = bytes.concat();
    let mut encoder = AttributesEncoder::new();
    let count = updates.len() as u32;
    assert!(encoder.push_encoded(&bytes, count - 1).is_err());
    assert!(encoder.push_encoded(&bytes, count + 1).is_err());
    assert!(encoder.is_empty());
    encoder.push_encoded(&bytes, count).unwrap();
    assert_eq!(encoder.environments().collect::<Vec<_>>(), [EnvNo(300)]);
    let mut out = Vec::new();
    let summary = encoder.encode(&mut out);
    assert_eq!(summary, AttributesSummary { attributes: 12, env_attributes: 2 });
    assert_eq!(out, payload(&updates));
}

#[test]
fn what_is_undefined_is_refused() {
    let refused = |bytes: &[u8]| AttributeUpdate::decode(bytes).unwrap_err();
    let unknown = |what, found| DecodeError::Unknown { what, found };
    assert_eq!(refused(&[8, 0, 0]), unknown("attribute operation", 8));
    assert_eq!(refused(&[1, 2, 0]), unknown("attribute flags", 2));
    assert_eq!(refused(&[1, 0, 3, 1, b'a', 9]), unknown("attribute type", 9));
    assert_eq!(refused(&[7, 0, 2, 3, 0]), unknown("close status", 3));
    assert!(matches!(refused(&[1, 0, 4, 1, b'a', 1, 2]), DecodeError::Malformed(_)));
    assert!(matches!(refused(&[1, 0, 5, 1, b'a', 2, 1, b'x']), DecodeError::Malformed(_)));
    assert!(matches!(refused(&[6, 0, 2, 1, 0xff]), DecodeError::Malformed(_)));
    assert!(matches!(refused(&[2, 0, 5, 0, 1, 1, b'p', 0]), DecodeError::Malformed(_)));
    assert_eq!(refused(&[2, 0, 5, 1, 3, 1, b'p', 0]), DecodeError::Limit("an episode"));
    let mut newer = payload(&[]);
    newer[0] = 2;
    let error = decode_attributes(&newer).unwrap_err();
    assert_eq!(error, DecodeError::Version { found: 2, supported: 1 });
}

#[test]
fn damaged_payloads_never_panic() {
    let updates: Vec<_> = golden().into_iter().map(|(update, _)| update).collect();
    let whole = payload(&updates);
    for length in 0..whole.len() {
        assert!(decode_attributes(&whole[..length]).is_err());
    }
    for bit in 0..whole.len() * 8 {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let _ = decode_attributes(&flipped);
    }
}

fn values() -> impl Strategy<Value = AttributeValue> {
    prop_oneof![
        any::<bool>().prop_map(AttributeValue::Bool),
        any::<i128>().prop_map(|number| AttributeValue::Int(number.to_string())),
        // NaN would not be equal to itself.
        any::<i64>().prop_map(|number| AttributeValue::Float(number as f64)),
        ".*".prop_map(AttributeValue::Text),
        prop::collection::vec(".{0,20}", 0..5).prop_map(AttributeValue::TextList),
    ]
}

fn operations() -> impl Strategy<Value = AttributeOperation> {
    let episodes = prop::option::of(0..=MAX_EPISODE);
    prop_oneof![
        (".*", values()).prop_map(|(path, value)| AttributeOperation::Set { path, value }),
        (1..=u32::MAX, episodes, ".*", values()).prop_map(|(env, episode, path, value)| {
            AttributeOperation::SetEnvironment { env: EnvNo(env), episode, path, value }
        }),
        prop::collection::vec(".{0,20}", 0..5).prop_map(AttributeOperation::AddTags),
        any::<i64>().prop_map(|timestamp_ms| AttributeOperation::Close {
            status: CloseStatus::Finished,
            timestamp_ms,
        }),
    ]
}

proptest! {
    #[test]
    fn updates_survive(updates in prop::collection::vec((any::<bool>(), operations()), 0..20)) {
        let updates: Vec<_> =
            updates.into_iter().map(|(initial, operation)| update(initial, operation)).collect();
        prop_assert_eq!(decode_attributes(&payload(&updates)), Ok(updates));
    }

    #[test]
    fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = AttributeUpdate::decode(&noise);
        let _ = decode_attributes(&[&[1, 0, 3, 0, 1, 0, 1], &noise[..]].concat());
    }
}
