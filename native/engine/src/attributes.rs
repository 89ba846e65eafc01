//! Attribute operations: config, tags, description and the close record.

use crate::batch::DecodeError;
use crate::types::EnvNo;

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
        let _ = out;
        todo!()
    }

    /// Reads one update from the front of `bytes`; returns it and how many bytes it took.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for bytes that are no update.
    pub fn decode(bytes: &[u8]) -> Result<(Self, usize), DecodeError> {
        let _ = bytes;
        todo!()
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

/// Collects the updates of one batch.
#[derive(Debug, Default)]
pub struct AttributesEncoder {}

impl AttributesEncoder {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends one update.
    pub fn push(&mut self, update: &AttributeUpdate) {
        let _ = update;
        todo!()
    }

    /// Appends updates already encoded, as a ring record holds them (without its padding).
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if `bytes` are not exactly `count` updates; none of them was taken.
    pub fn push_encoded(&mut self, bytes: &[u8], count: u32) -> Result<(), DecodeError> {
        let _ = (bytes, count);
        todo!()
    }

    /// Whether nothing was pushed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        todo!()
    }

    /// Environments the updates name: what must be declared before the batch.
    pub fn environments(&self) -> impl Iterator<Item = EnvNo> + '_ {
        std::iter::empty()
    }

    /// Bytes the payload will have at most.
    #[must_use]
    pub fn payload_bound(&self) -> usize {
        todo!()
    }

    /// Appends the payload to `out` and starts an empty batch.
    pub fn encode(&mut self, out: &mut Vec<u8>) -> AttributesSummary {
        let _ = out;
        todo!()
    }
}

/// Reads an attributes payload.
///
/// # Errors
///
/// [`DecodeError`] for anything that is not a whole payload of a known version.
pub fn decode_attributes(payload: &[u8]) -> Result<Vec<AttributeUpdate>, DecodeError> {
    let _ = payload;
    todo!()
}
