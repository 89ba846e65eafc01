//! Declarations: what the numbers in batches stand for.
//!
//! ```text
//! payload      version u16, entry_count varint, entry*
//! metric       1, metric_no varint, scale u8, name, label_count varint, (key, value)*
//! environment  2, env_no varint, env_id
//! ```
//!
//! An entry has the same bytes in a ring record and in a payload. They are canonical: labels are
//! sorted by key, so equal metrics have equal bytes but for the number.

use crate::batch::varint::{Reader, put_str, put_varint};
use crate::batch::{DecodeError, PAYLOAD_VERSION, read_version};
use crate::types::{
    EnvNo, MAX_ENV_ID_BYTES, MAX_LABEL_BYTES, MAX_LABELS, MAX_METRIC_NAME_BYTES, MetricNo, Scale,
};

const TAG_METRIC: u8 = 1;
const TAG_ENVIRONMENT: u8 = 2;

/// What one writer-local number stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Declaration {
    /// A metric.
    Metric {
        /// Its number, from 1.
        no: MetricNo,
        /// Its step axis.
        scale: Scale,
        /// Its name.
        name: String,
        /// Its labels; written sorted by key.
        labels: Vec<(String, String)>,
    },
    /// An environment.
    Environment {
        /// Its number, from 1.
        no: EnvNo,
        /// Its id.
        env_id: String,
    },
}

impl Declaration {
    /// Appends the declaration's bytes, as ring records and payloads hold them.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Metric { no, scale, name, labels } => {
                encode_metric(*no, *scale, name, labels, out);
            }
            Self::Environment { no, env_id } => encode_environment(*no, env_id, out),
        }
    }

    /// Reads one declaration from the front of `bytes`; returns it and how many bytes it took.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for bytes that are no declaration.
    pub fn decode(bytes: &[u8]) -> Result<(Self, usize), DecodeError> {
        let mut reader = Reader::new(bytes);
        let declaration = Self::read(&mut reader)?;
        Ok((declaration, bytes.len() - reader.remaining()))
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.u8("a declaration")? {
            TAG_METRIC => Ok(Self::Metric {
                no: MetricNo(read_number(reader)?),
                scale: read_scale(reader)?,
                name: read_name(reader, MAX_METRIC_NAME_BYTES, "a metric's name")?,
                labels: read_labels(reader)?,
            }),
            TAG_ENVIRONMENT => Ok(Self::Environment {
                no: EnvNo(read_number(reader)?),
                env_id: read_name(reader, MAX_ENV_ID_BYTES, "an environment's id")?,
            }),
            found => Err(DecodeError::Unknown { what: "declaration", found }),
        }
    }
}

fn read_number(reader: &mut Reader<'_>) -> Result<u32, DecodeError> {
    match reader.varint_u32("a declared number")? {
        0 => Err(DecodeError::Malformed("number 0 is declared")),
        number => Ok(number),
    }
}

fn read_scale(reader: &mut Reader<'_>) -> Result<Scale, DecodeError> {
    let found = reader.u8("a scale")?;
    Scale::from_u8(found).ok_or(DecodeError::Unknown { what: "scale", found })
}

fn read_name(
    reader: &mut Reader<'_>,
    max_bytes: usize,
    what: &'static str,
) -> Result<String, DecodeError> {
    match reader.str(max_bytes, what)? {
        "" => Err(DecodeError::Malformed("a name is empty")),
        name => Ok(name.to_owned()),
    }
}

fn read_labels(reader: &mut Reader<'_>) -> Result<Vec<(String, String)>, DecodeError> {
    let count = reader.length(MAX_LABELS, "the label count")?;
    let mut labels: Vec<(String, String)> = Vec::with_capacity(count);
    for _ in 0..count {
        let key = reader.str(MAX_LABEL_BYTES, "a label's key")?;
        let value = reader.str(MAX_LABEL_BYTES, "a label's value")?;
        if labels.last().is_some_and(|(before, _)| before.as_str() >= key) {
            return Err(DecodeError::Malformed("labels are not sorted by key"));
        }
        labels.push((key.to_owned(), value.to_owned()));
    }
    Ok(labels)
}

/// Appends a metric's declaration without owning its parts. Labels, whose keys are distinct, are
/// written sorted by key.
pub fn encode_metric(
    no: MetricNo,
    scale: Scale,
    name: &str,
    labels: &[(String, String)],
    out: &mut Vec<u8>,
) {
    out.push(TAG_METRIC);
    put_varint(out, u64::from(no.0));
    out.push(scale as u8);
    put_str(out, name);
    put_varint(out, labels.len() as u64);
    let mut sorted: Vec<_> = labels.iter().collect();
    sorted.sort_unstable();
    for (key, value) in sorted {
        put_str(out, key);
        put_str(out, value);
    }
}

/// Appends an environment's declaration without owning its parts.
pub fn encode_environment(no: EnvNo, env_id: &str, out: &mut Vec<u8>) {
    out.push(TAG_ENVIRONMENT);
    put_varint(out, u64::from(no.0));
    put_str(out, env_id);
}

/// Appends a payload made of declarations that are already encoded, one slice each.
pub fn encode_declarations<'a>(
    entries: impl ExactSizeIterator<Item = &'a [u8]>,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(&PAYLOAD_VERSION.to_le_bytes());
    put_varint(out, entries.len() as u64);
    for entry in entries {
        out.extend_from_slice(entry);
    }
}

/// Reads a declarations payload.
///
/// # Errors
///
/// [`DecodeError`] for anything that is not a whole payload of a known version.
pub fn decode_declarations(payload: &[u8]) -> Result<Vec<Declaration>, DecodeError> {
    let mut reader = Reader::new(payload);
    read_version(&mut reader)?;
    let count = reader.varint("the declaration count")?;
    let mut declarations = Vec::new();
    for _ in 0..count {
        declarations.push(Declaration::read(&mut reader)?);
    }
    reader.finish("bytes follow the last declaration")?;
    Ok(declarations)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn metric(no: u32, name: &str, labels: &[(&str, &str)]) -> Declaration {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let labels = labels.collect();
        let scale = Scale::EnvironmentStep;
        Declaration::Metric { no: MetricNo(no), scale, name: name.to_owned(), labels }
    }

    fn environment(no: u32, env_id: &str) -> Declaration {
        Declaration::Environment { no: EnvNo(no), env_id: env_id.to_owned() }
    }

    fn encoded(declaration: &Declaration) -> Vec<u8> {
        let mut out = Vec::new();
        declaration.encode(&mut out);
        out
    }

    fn payload(declarations: &[Declaration]) -> Vec<u8> {
        let entries: Vec<_> = declarations.iter().map(encoded).collect();
        let mut out = Vec::new();
        encode_declarations(entries.iter().map(Vec::as_slice), &mut out);
        out
    }

    #[test]
    fn declarations_have_the_documented_bytes() {
        let declarations = [metric(1, "a/b", &[("k", "v"), ("z", "")]), environment(300, "env-0")];
        let golden = b"\x01\x00\x02\x01\x01\x03\x03a/b\x02\x01k\x01v\x01z\x00\x02\xac\x02\x05env-0";
        assert_eq!(payload(&declarations), golden);
        assert_eq!(decode_declarations(golden).as_deref(), Ok(&declarations[..]));
    }

    #[test]
    fn labels_are_sorted_when_written() {
        let sorted = metric(1, "a", &[("k", "v"), ("z", "w")]);
        let unsorted = encoded(&metric(1, "a", &[("z", "w"), ("k", "v")]));
        assert_eq!(unsorted, encoded(&sorted));
        let padded = [&unsorted[..], &[0; 3]].concat();
        assert_eq!(Declaration::decode(&padded), Ok((sorted, unsorted.len())));
    }

    #[test]
    fn what_is_undefined_is_refused() {
        let refused = |bytes: &[u8]| Declaration::decode(bytes).unwrap_err();
        let unknown = |what, found| DecodeError::Unknown { what, found };
        assert_eq!(refused(&[3, 1]), unknown("declaration", 3));
        assert_eq!(refused(&[1, 1, 4, 1, b'a', 0]), unknown("scale", 4));
        assert!(matches!(refused(&[1, 0, 1, 1, b'a', 0]), DecodeError::Malformed(_)));
        assert!(matches!(refused(&[2, 1, 0]), DecodeError::Malformed(_)));
        assert!(matches!(refused(&[1, 1, 1, 1, b'a', 33]), DecodeError::Limit(_)));
        let repeated = [1, 1, 1, 1, b'a', 2, 1, b'k', 0, 1, b'k', 0];
        assert!(matches!(refused(&repeated), DecodeError::Malformed(_)));
        let long = encoded(&environment(1, &"e".repeat(MAX_ENV_ID_BYTES + 1)));
        assert!(matches!(refused(&long), DecodeError::Limit(_)));
        let mut newer = payload(&[]);
        newer[0] = 2;
        let error = decode_declarations(&newer).unwrap_err();
        assert_eq!(error, DecodeError::Version { found: 2, supported: 1 });
    }

    #[test]
    fn damaged_payloads_never_panic() {
        let whole = payload(&[metric(70_000, "loss", &[("k", "v")]), environment(1, "a")]);
        for length in 0..whole.len() {
            assert!(decode_declarations(&whole[..length]).is_err());
        }
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let _ = decode_declarations(&flipped);
        }
    }

    fn declarations() -> impl Strategy<Value = Declaration> {
        let labels = prop::collection::btree_map(".{0,20}", ".{0,20}", 0..5);
        let scale = (1..=3_u8).prop_map(|number| Scale::from_u8(number).unwrap());
        let metric =
            (1..=u32::MAX, scale, ".{1,40}", labels).prop_map(|(no, scale, name, labels)| {
                Declaration::Metric {
                    no: MetricNo(no),
                    scale,
                    name,
                    labels: labels.into_iter().collect(),
                }
            });
        let environment = (1..=u32::MAX, "[A-Za-z0-9._~:-]{1,128}")
            .prop_map(|(no, env_id)| Declaration::Environment { no: EnvNo(no), env_id });
        prop_oneof![metric, environment]
    }

    proptest! {
        #[test]
        fn declarations_survive(declarations in prop::collection::vec(declarations(), 0..20)) {
            prop_assert_eq!(decode_declarations(&payload(&declarations)), Ok(declarations));
        }

        #[test]
        fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode_declarations(&[&[1, 0], &noise[..]].concat());
        }
    }
}
