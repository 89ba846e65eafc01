//! Attribute operations: config, tags, description and the close record.
//!
//! ```text
//! payload   version u16, kind u8 (3), flags u8, attribute_count varint, env_attribute_count varint,
//!           operation_count varint, operation*
//! operation tag u8, flags u8, byte_length varint, body
//! ```
//!
//! An operation has the same bytes in a ring record and in a payload.

use std::collections::BTreeSet;

use crate::batch::varint::{Reader, put_str, put_varint, put_zigzag};
use crate::batch::{DecodeError, PAYLOAD_VERSION, read_header};
use crate::types::{BatchKind, EnvNo, MAX_EPISODE, UNUSED};

/// Most bytes of version, kind, flags and three counts.
const MAX_HEADER_BYTES: usize = 4 + 3 * 10;
/// The operation came from `init()`.
const INITIAL: u8 = 1;

const TAG_SET: u8 = 1;
const TAG_SET_ENVIRONMENT: u8 = 2;
const TAG_SET_TAGS: u8 = 3;
const TAG_ADD_TAGS: u8 = 4;
const TAG_REMOVE_TAGS: u8 = 5;
const TAG_SET_DESCRIPTION: u8 = 6;
const TAG_CLOSE: u8 = 7;

/// The typed value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum AttributeValue {
    /// None.
    Null,
    /// True or false.
    Bool(bool),
    /// An integer of any size, as its decimal digits.
    Int(String),
    /// A float64.
    Float(f64),
    /// A text.
    Text(String),
    /// A time, as ISO 8601 with its offset.
    DateTime(String),
    /// A non-empty list of texts.
    TextList(Vec<String>),
    /// A mapping without entries.
    EmptyMapping,
    /// A list without entries.
    EmptyList,
}

impl AttributeValue {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.push(0),
            Self::Bool(value) => out.extend_from_slice(&[1, u8::from(*value)]),
            Self::Int(digits) => put_text(2, digits, out),
            Self::Float(value) => {
                out.push(3);
                out.extend_from_slice(&value.to_le_bytes());
            }
            Self::Text(text) => put_text(4, text, out),
            Self::DateTime(text) => put_text(5, text, out),
            Self::TextList(texts) => {
                out.push(6);
                put_texts(texts, out);
            }
            Self::EmptyMapping => out.push(7),
            Self::EmptyList => out.push(8),
        }
    }

    fn decode(body: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match body.u8("an attribute's type")? {
            0 => Self::Null,
            1 => match body.u8("a bool")? {
                byte @ 0..=1 => Self::Bool(byte == 1),
                _ => return Err(DecodeError::Malformed("a bool is neither 0 nor 1")),
            },
            2 => Self::Int(read_integer(body)?),
            3 => Self::Float(f64::from_le_bytes(body.array("a float")?)),
            4 => Self::Text(read_text(body)?),
            5 => Self::DateTime(read_text(body)?),
            6 => Self::TextList(read_texts(body)?),
            7 => Self::EmptyMapping,
            8 => Self::EmptyList,
            found => return Err(DecodeError::Unknown { what: "attribute type", found }),
        })
    }
}

fn put_text(tag: u8, text: &str, out: &mut Vec<u8>) {
    out.push(tag);
    put_str(out, text);
}

fn put_texts(texts: &[String], out: &mut Vec<u8>) {
    put_varint(out, texts.len() as u64);
    for text in texts {
        put_str(out, text);
    }
}

/// A text is as long as the bytes that are left allow: what limits attributes have is checked where
/// they are logged, and data that was sealed is never refused for its size.
fn read_text(body: &mut Reader<'_>) -> Result<String, DecodeError> {
    body.str(body.remaining(), "a text").map(str::to_owned)
}

fn read_texts(body: &mut Reader<'_>) -> Result<Vec<String>, DecodeError> {
    let count = body.length(body.remaining(), "a list's length")?;
    (0..count).map(|_| read_text(body)).collect()
}

fn read_integer(body: &mut Reader<'_>) -> Result<String, DecodeError> {
    let text = read_text(body)?;
    let digits = text.strip_prefix('-').unwrap_or(&text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(DecodeError::Malformed("an integer is not decimal"));
    }
    Ok(text)
}

/// How a writer ended, as its close record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CloseStatus {
    /// Closed in order.
    Finished = 1,
    /// Closed after an error.
    Failed = 2,
}

/// One change to a run's attributes.
#[derive(Clone, Debug, PartialEq)]
pub enum AttributeOperation {
    /// Sets an attribute of the run.
    Set {
        /// Path, `/` between its parts.
        path: String,
        /// The new value.
        value: AttributeValue,
    },
    /// Sets an attribute of an environment, or of one of its episodes.
    SetEnvironment {
        /// The environment.
        env: EnvNo,
        /// The episode; None: the environment's own attribute.
        episode: Option<i64>,
        /// Path, `/` between its parts.
        path: String,
        /// The new value.
        value: AttributeValue,
    },
    /// Replaces the tags.
    SetTags(Vec<String>),
    /// Adds tags.
    AddTags(Vec<String>),
    /// Removes tags.
    RemoveTags(Vec<String>),
    /// Replaces the description.
    SetDescription(String),
    /// The writer ends.
    Close {
        /// How.
        status: CloseStatus,
        /// When, in Unix milliseconds.
        timestamp_ms: i64,
    },
}

impl AttributeOperation {
    const fn tag(&self) -> u8 {
        match self {
            Self::Set { .. } => TAG_SET,
            Self::SetEnvironment { .. } => TAG_SET_ENVIRONMENT,
            Self::SetTags(_) => TAG_SET_TAGS,
            Self::AddTags(_) => TAG_ADD_TAGS,
            Self::RemoveTags(_) => TAG_REMOVE_TAGS,
            Self::SetDescription(_) => TAG_SET_DESCRIPTION,
            Self::Close { .. } => TAG_CLOSE,
        }
    }

    /// What the operation adds to the counts of `get_metrics()`: the close record is the engine's
    /// own and counts as nothing.
    #[must_use]
    pub const fn counts(&self) -> AttributesSummary {
        match self {
            Self::SetEnvironment { .. } => AttributesSummary { attributes: 0, env_attributes: 1 },
            Self::Close { .. } => AttributesSummary { attributes: 0, env_attributes: 0 },
            _ => AttributesSummary { attributes: 1, env_attributes: 0 },
        }
    }

    fn encode_body(&self, out: &mut Vec<u8>) {
        match self {
            Self::Set { path, value } => {
                put_str(out, path);
                value.encode(out);
            }
            Self::SetEnvironment { env, episode, path, value } => {
                put_varint(out, u64::from(env.0));
                put_zigzag(out, episode.unwrap_or(UNUSED));
                put_str(out, path);
                value.encode(out);
            }
            Self::SetTags(tags) | Self::AddTags(tags) | Self::RemoveTags(tags) => {
                put_texts(tags, out);
            }
            Self::SetDescription(text) => put_str(out, text),
            Self::Close { status, timestamp_ms } => {
                out.push(*status as u8);
                put_zigzag(out, *timestamp_ms);
            }
        }
    }

    fn decode_body(tag: u8, body: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match tag {
            TAG_SET => Self::Set { path: read_text(body)?, value: AttributeValue::decode(body)? },
            TAG_SET_ENVIRONMENT => Self::SetEnvironment {
                env: read_env(body)?,
                episode: read_episode(body)?,
                path: read_text(body)?,
                value: AttributeValue::decode(body)?,
            },
            TAG_SET_TAGS => Self::SetTags(read_texts(body)?),
            TAG_ADD_TAGS => Self::AddTags(read_texts(body)?),
            TAG_REMOVE_TAGS => Self::RemoveTags(read_texts(body)?),
            TAG_SET_DESCRIPTION => Self::SetDescription(read_text(body)?),
            TAG_CLOSE => Self::Close {
                status: read_status(body)?,
                timestamp_ms: body.zigzag("a close record")?,
            },
            found => return Err(DecodeError::Unknown { what: "attribute operation", found }),
        })
    }
}

fn read_env(body: &mut Reader<'_>) -> Result<EnvNo, DecodeError> {
    match body.varint_u32("an environment's number")? {
        0 => Err(DecodeError::Malformed("an environment's attribute has no environment")),
        number => Ok(EnvNo(number)),
    }
}

fn read_episode(body: &mut Reader<'_>) -> Result<Option<i64>, DecodeError> {
    match body.zigzag("an episode")? {
        UNUSED => Ok(None),
        episode @ 0..=MAX_EPISODE => Ok(Some(episode)),
        _ => Err(DecodeError::Limit("an episode")),
    }
}

fn read_status(body: &mut Reader<'_>) -> Result<CloseStatus, DecodeError> {
    match body.u8("a close record")? {
        1 => Ok(CloseStatus::Finished),
        2 => Ok(CloseStatus::Failed),
        found => Err(DecodeError::Unknown { what: "close status", found }),
    }
}

/// An operation, and whether it came from `init()`.
#[derive(Clone, Debug, PartialEq)]
pub struct AttributeUpdate {
    /// What `init()` was given: applied only if this writer created the run.
    pub initial: bool,
    /// What to do.
    pub operation: AttributeOperation,
}

impl AttributeUpdate {
    /// Appends the update's bytes, as ring records and payloads hold them.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.operation.tag(), if self.initial { INITIAL } else { 0 }]);
        let start = out.len();
        self.operation.encode_body(out);
        let mut length = Vec::with_capacity(10);
        put_varint(&mut length, (out.len() - start) as u64);
        out.splice(start..start, length);
    }

    /// Reads one update from the front of `bytes`; returns it and how many bytes it took.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for bytes that are no update.
    pub fn decode(bytes: &[u8]) -> Result<(Self, usize), DecodeError> {
        let mut reader = Reader::new(bytes);
        let update = Self::read(&mut reader)?;
        Ok((update, bytes.len() - reader.remaining()))
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        const WHAT: &str = "an attribute operation";
        let (tag, flags) = (reader.u8(WHAT)?, reader.u8(WHAT)?);
        if flags & !INITIAL != 0 {
            return Err(DecodeError::Unknown { what: "attribute flags", found: flags });
        }
        let length = reader.length(reader.remaining(), WHAT)?;
        let mut body = Reader::new(reader.bytes(length, WHAT)?);
        let operation = AttributeOperation::decode_body(tag, &mut body)?;
        body.finish("an attribute operation is longer than its contents")?;
        Ok(Self { initial: flags & INITIAL != 0, operation })
    }
}

/// How many updates a payload has of each kind that `get_metrics()` counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttributesSummary {
    /// Attributes, tags and descriptions of the run.
    pub attributes: u64,
    /// Attributes of environments and episodes.
    pub env_attributes: u64,
}

impl AttributesSummary {
    const fn add(&mut self, other: Self) {
        self.attributes += other.attributes;
        self.env_attributes += other.env_attributes;
    }
}

/// Collects the updates of one batch.
#[derive(Debug, Default)]
pub struct AttributesEncoder {
    operations: Vec<u8>,
    operation_count: u64,
    summary: AttributesSummary,
    environments: BTreeSet<EnvNo>,
}

impl AttributesEncoder {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends one update.
    pub fn push(&mut self, update: &AttributeUpdate) {
        update.encode(&mut self.operations);
        self.count(update);
    }

    /// Appends updates already encoded, as a ring record holds them (without its padding).
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if `bytes` are not exactly `count` updates; none of them was taken.
    pub fn push_encoded(&mut self, bytes: &[u8], count: u32) -> Result<(), DecodeError> {
        let mut reader = Reader::new(bytes);
        let updates = read_updates(&mut reader, u64::from(count))?;
        self.operations.extend_from_slice(bytes);
        for update in &updates {
            self.count(update);
        }
        Ok(())
    }

    fn count(&mut self, update: &AttributeUpdate) {
        self.operation_count += 1;
        self.summary.add(update.operation.counts());
        if let AttributeOperation::SetEnvironment { env, .. } = update.operation {
            self.environments.insert(env);
        }
    }

    /// Whether nothing was pushed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.operation_count == 0
    }

    /// Environments the updates name, rising: what must be declared before the batch.
    pub fn environments(&self) -> impl Iterator<Item = EnvNo> + '_ {
        self.environments.iter().copied()
    }

    /// No payload that [`Self::encode`] could now make is longer than this many bytes.
    #[must_use]
    pub fn payload_bound(&self) -> usize {
        MAX_HEADER_BYTES + self.operations.len()
    }

    /// Appends the payload to `out` and starts an empty batch.
    pub fn encode(&mut self, out: &mut Vec<u8>) -> AttributesSummary {
        out.extend_from_slice(&PAYLOAD_VERSION.to_le_bytes());
        out.extend_from_slice(&[BatchKind::Attributes as u8, 0]);
        put_varint(out, self.summary.attributes);
        put_varint(out, self.summary.env_attributes);
        put_varint(out, self.operation_count);
        out.extend_from_slice(&self.operations);
        let summary = self.summary;
        self.clear();
        summary
    }

    /// Forgets all that was pushed.
    pub fn clear(&mut self) {
        self.operations.clear();
        self.operation_count = 0;
        self.summary = AttributesSummary::default();
        self.environments.clear();
    }
}

/// Reads an attributes payload.
///
/// # Errors
///
/// [`DecodeError`] for anything that is not a whole payload of a known version.
pub fn decode_attributes(payload: &[u8]) -> Result<Vec<AttributeUpdate>, DecodeError> {
    let mut reader = Reader::new(payload);
    let info = read_header(&mut reader)?;
    if info.kind != BatchKind::Attributes {
        return Err(DecodeError::Malformed("this is no attributes payload"));
    }
    let count = reader.varint("the operation count")?;
    let updates = read_updates(&mut reader, count)?;
    let mut summary = AttributesSummary::default();
    for update in &updates {
        summary.add(update.operation.counts());
    }
    if (summary.attributes, summary.env_attributes)
        == (info.attribute_count, info.env_attribute_count)
    {
        Ok(updates)
    } else {
        Err(DecodeError::Malformed("the operations are not those of the header"))
    }
}

/// `count` updates and nothing behind them.
fn read_updates(reader: &mut Reader<'_>, count: u64) -> Result<Vec<AttributeUpdate>, DecodeError> {
    let mut updates = Vec::new();
    for _ in 0..count {
        updates.push(AttributeUpdate::read(reader)?);
    }
    reader.finish("bytes follow the last attribute operation")?;
    Ok(updates)
}

#[cfg(test)]
mod tests;
