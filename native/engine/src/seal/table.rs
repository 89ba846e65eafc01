//! What the numbers of a writer stand for.

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::declarations::{Declaration, encode_declarations};
use crate::spool::{DeclarationSource, UnknownNumber};
use crate::types::{EnvNo, MetricNo, Scale};

/// A metric's scale, name and labels.
pub type MetricParts = (Scale, String, Vec<(String, String)>);

/// What the numbers of a writer stand for, as its ring or spool declared them.
#[derive(Debug, Default)]
pub struct DeclarationTable {
    metrics: HashMap<MetricNo, (Scale, Box<[u8]>), FixedState>,
    envs: HashMap<EnvNo, Box<[u8]>, FixedState>,
    /// A bit a number: every segment of every block asks, and a look into the map costs a cache miss.
    known_envs: Vec<u64>,
}

/// Numbers are dense; one beyond this is damage, and not worth its memory.
const MAX_DENSE_ENVS: usize = 1 << 24;

impl DeclarationTable {
    /// Takes note of a declaration; one that is known already changes nothing.
    pub fn insert(&mut self, declaration: &Declaration) {
        let mut bytes = Vec::new();
        declaration.encode(&mut bytes);
        match declaration {
            Declaration::Metric { no, scale, .. } => {
                self.metrics.entry(*no).or_insert_with(|| (*scale, bytes.into()));
            }
            Declaration::Environment { no, .. } => {
                self.envs.entry(*no).or_insert_with(|| bytes.into());
                self.note_env(no.0 as usize);
            }
        }
    }

    pub(super) fn scale(&self, no: MetricNo) -> Option<Scale> {
        self.metrics.get(&no).map(|(scale, _)| *scale)
    }

    fn note_env(&mut self, no: usize) {
        if no >= MAX_DENSE_ENVS {
            return;
        }
        if no / 64 >= self.known_envs.len() {
            self.known_envs.resize(no / 64 + 1, 0);
        }
        self.known_envs[no / 64] |= 1 << (no % 64);
    }

    #[inline]
    pub(super) fn knows_env(&self, no: EnvNo) -> bool {
        let at = no.0 as usize;
        match self.known_envs.get(at / 64) {
            Some(bits) if bits & (1 << (at % 64)) != 0 => true,
            _ => no == EnvNo::NONE || self.envs.contains_key(&no),
        }
    }

    /// What a metric's number stands for: scale, name, labels.
    pub fn metric_parts(&self, no: MetricNo) -> Option<MetricParts> {
        match Declaration::decode(&self.metrics.get(&no)?.1) {
            Ok((Declaration::Metric { scale, name, labels, .. }, _)) => Some((scale, name, labels)),
            _ => None,
        }
    }

    /// The id that an environment's number stands for.
    pub fn env_id(&self, no: EnvNo) -> Option<String> {
        match Declaration::decode(self.envs.get(&no)?) {
            Ok((Declaration::Environment { env_id, .. }, _)) => Some(env_id),
            _ => None,
        }
    }
}

impl DeclarationSource for DeclarationTable {
    fn encode_declarations(
        &mut self,
        metrics: &[MetricNo],
        envs: &[EnvNo],
        out: &mut Vec<u8>,
    ) -> Result<(), UnknownNumber> {
        let mut entries: Vec<&[u8]> = Vec::with_capacity(metrics.len() + envs.len());
        for no in metrics {
            entries.push(&self.metrics.get(no).ok_or(UnknownNumber::Metric(*no))?.1);
        }
        for no in envs {
            entries.push(self.envs.get(no).ok_or(UnknownNumber::Env(*no))?);
        }
        encode_declarations(entries.into_iter(), out);
        Ok(())
    }
}
