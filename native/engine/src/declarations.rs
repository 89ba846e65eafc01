//! Declarations: what the numbers in batches stand for.

use crate::batch::DecodeError;
use crate::types::{EnvNo, MetricNo, Scale};

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
        let _ = out;
        todo!()
    }

    /// Reads one declaration from the front of `bytes`; returns it and how many bytes it took.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for bytes that are no declaration.
    pub fn decode(bytes: &[u8]) -> Result<(Self, usize), DecodeError> {
        let _ = bytes;
        todo!()
    }
}

/// Appends a metric's declaration without owning its parts. Labels are written sorted by key.
pub fn encode_metric(
    no: MetricNo,
    scale: Scale,
    name: &str,
    labels: &[(String, String)],
    out: &mut Vec<u8>,
) {
    let _ = (no, scale, name, labels, out);
    todo!()
}

/// Appends an environment's declaration without owning its parts.
pub fn encode_environment(no: EnvNo, env_id: &str, out: &mut Vec<u8>) {
    let _ = (no, env_id, out);
    todo!()
}

/// Appends a payload made of declarations that are already encoded, one slice each.
pub fn encode_declarations<'a>(
    entries: impl ExactSizeIterator<Item = &'a [u8]>,
    out: &mut Vec<u8>,
) {
    let _ = (entries, out);
    todo!()
}

/// Reads a declarations payload.
///
/// # Errors
///
/// [`DecodeError`] for anything that is not a whole payload of a known version.
pub fn decode_declarations(payload: &[u8]) -> Result<Vec<Declaration>, DecodeError> {
    let _ = payload;
    todo!()
}
