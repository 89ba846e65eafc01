//! Which number stands for which metric and environment, and which numbers have been declared.
//!
//! Numbers are given out on first sight and declared in the ring on first use: one that is known
//! only from a cursor, or from asking for a last step, costs the run nothing.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use crate::declarations::{encode_environment, encode_metric};
use crate::error::InvalidArgument;
use crate::types::{
    EnvNo, MAX_ENV_ID_BYTES, MAX_LABEL_BYTES, MAX_LABELS, MAX_METRIC_NAME_BYTES, MetricNo, Scale,
};

/// A metric's identity.
#[derive(Debug)]
pub struct Metric {
    pub scale: Scale,
    pub name: String,
    /// Sorted by key.
    pub labels: Vec<(String, String)>,
    declared: bool,
}

#[derive(Debug)]
struct Environment {
    env_id: String,
    declared: bool,
}

/// The numbers of one writer.
#[derive(Debug)]
pub struct Registry {
    hasher: FixedState,
    /// Numbers by the hash of what they stand for.
    metrics_by_hash: HashTable<MetricNo>,
    envs_by_hash: HashTable<EnvNo>,
    /// Number − 1 is the index.
    metrics: Vec<Metric>,
    envs: Vec<Environment>,
    /// Lets a point skip looking at its metric, a block of a thousand environments at each.
    undeclared_metrics: usize,
    undeclared_envs: usize,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            hasher: FixedState::default(),
            metrics_by_hash: HashTable::new(),
            envs_by_hash: HashTable::new(),
            metrics: Vec::new(),
            envs: Vec::new(),
            undeclared_metrics: 0,
            undeclared_envs: 0,
        }
    }
}

impl Registry {
    /// The number of this metric, a new one if it is new. `labels` in any order.
    ///
    /// # Errors
    ///
    /// A name or label outside the limits, or a key given twice.
    pub fn metric(
        &mut self,
        name: &str,
        scale: Scale,
        labels: &[(&str, &str)],
    ) -> Result<MetricNo, InvalidArgument> {
        let mut sorted;
        let labels = if labels.len() > 1 {
            sorted = labels.to_vec();
            sorted.sort_unstable();
            &sorted
        } else {
            labels
        };
        let hash = self.hash_metric(name, scale, labels);
        let metrics = &self.metrics;
        let same = |no: &MetricNo| metrics[no.0 as usize - 1].is(name, scale, labels);
        if let Some(no) = self.metrics_by_hash.find(hash, same) {
            return Ok(*no);
        }
        check_metric_name(name)?;
        check_labels(labels)?;
        let owned = |text: &&str| (*text).to_owned();
        self.metrics.push(Metric {
            scale,
            name: name.to_owned(),
            labels: labels.iter().map(|(key, value)| (owned(key), owned(value))).collect(),
            declared: false,
        });
        self.undeclared_metrics += 1;
        let no = MetricNo(number(self.metrics.len())?);
        let (hasher, metrics) = (&self.hasher, &self.metrics);
        self.metrics_by_hash.insert_unique(hash, no, |no| metrics[no.0 as usize - 1].hash(hasher));
        Ok(no)
    }

    /// The number of this environment, a new one if it is new.
    ///
    /// # Errors
    ///
    /// An id that is no URL segment of 1 to 128 bytes.
    pub fn env(&mut self, env_id: &str) -> Result<EnvNo, InvalidArgument> {
        let hash = self.hasher.hash_one(env_id);
        let envs = &self.envs;
        if let Some(no) =
            self.envs_by_hash.find(hash, |no| envs[no.0 as usize - 1].env_id == env_id)
        {
            return Ok(*no);
        }
        check_env_id(env_id)?;
        self.envs.push(Environment { env_id: env_id.to_owned(), declared: false });
        self.undeclared_envs += 1;
        let no = EnvNo(number(self.envs.len())?);
        let (hasher, envs) = (&self.hasher, &self.envs);
        self.envs_by_hash
            .insert_unique(hash, no, |no| hasher.hash_one(envs[no.0 as usize - 1].env_id.as_str()));
        Ok(no)
    }

    fn hash_metric(&self, name: &str, scale: Scale, labels: &[(&str, &str)]) -> u64 {
        self.hasher.hash_one((name, scale, labels))
    }

    /// What this number stands for.
    pub fn metric_of(&self, no: MetricNo) -> Option<&Metric> {
        self.metrics.get((no.0 as usize).checked_sub(1)?)
    }

    /// What this number stands for.
    pub fn env_id_of(&self, no: EnvNo) -> Option<&str> {
        Some(&self.envs.get((no.0 as usize).checked_sub(1)?)?.env_id)
    }

    /// Metrics known so far.
    pub fn metric_count(&self) -> usize {
        self.metrics.len()
    }

    /// Environments known so far.
    pub fn env_count(&self) -> usize {
        self.envs.len()
    }

    /// Whether the metric still has to be declared before a point of it.
    #[inline]
    pub fn metric_is_undeclared(&self, no: MetricNo) -> bool {
        self.undeclared_metrics > 0
            && self
                .metrics
                .get((no.0 as usize).wrapping_sub(1))
                .is_some_and(|metric| !metric.declared)
    }

    /// Whether the environment still has to be declared before a point of it.
    #[inline]
    pub fn env_is_undeclared(&self, no: EnvNo) -> bool {
        self.undeclared_envs > 0
            && self.envs.get((no.0 as usize).wrapping_sub(1)).is_some_and(|env| !env.declared)
    }

    /// Whether there is an environment that was never declared.
    #[inline]
    pub const fn has_undeclared_envs(&self) -> bool {
        self.undeclared_envs > 0
    }

    /// Appends the metric's declaration to `out`.
    pub fn encode_metric(&self, no: MetricNo, out: &mut Vec<u8>) {
        if let Some(metric) = self.metric_of(no) {
            encode_metric(no, metric.scale, &metric.name, &metric.labels, out);
        }
    }

    /// Appends the environment's declaration to `out`.
    pub fn encode_env(&self, no: EnvNo, out: &mut Vec<u8>) {
        if let Some(env_id) = self.env_id_of(no) {
            encode_environment(no, env_id, out);
        }
    }

    /// The metric's declaration is in the ring.
    pub fn metric_was_declared(&mut self, no: MetricNo) {
        if let Some(metric) = self.metrics.get_mut((no.0 as usize).wrapping_sub(1))
            && !metric.declared
        {
            metric.declared = true;
            self.undeclared_metrics -= 1;
        }
    }

    /// The environment's declaration is in the ring.
    pub fn env_was_declared(&mut self, no: EnvNo) {
        if let Some(env) = self.envs.get_mut((no.0 as usize).wrapping_sub(1))
            && !env.declared
        {
            env.declared = true;
            self.undeclared_envs -= 1;
        }
    }

    /// The ring was lost, and with it declarations that may not have reached the spool: each is
    /// made again at its next use.
    pub fn declare_all_again(&mut self) {
        self.metrics.iter_mut().for_each(|metric| metric.declared = false);
        self.envs.iter_mut().for_each(|env| env.declared = false);
        self.undeclared_metrics = self.metrics.len();
        self.undeclared_envs = self.envs.len();
    }
}

impl Metric {
    fn is(&self, name: &str, scale: Scale, labels: &[(&str, &str)]) -> bool {
        self.scale == scale
            && self.name == name
            && self.labels.len() == labels.len()
            && self
                .labels
                .iter()
                .zip(labels)
                .all(|(own, given)| own.0 == given.0 && own.1 == given.1)
    }

    /// The same as [`Registry::hash_metric`] of its parts.
    fn hash(&self, hasher: &FixedState) -> u64 {
        let labels: Vec<(&str, &str)> =
            self.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        hasher.hash_one((self.name.as_str(), self.scale, labels.as_slice()))
    }
}

fn number(count: usize) -> Result<u32, InvalidArgument> {
    u32::try_from(count)
        .map_err(|_| InvalidArgument::new("metric_name", "more than 4 billion of them in one run"))
}

fn check_metric_name(name: &str) -> Result<(), InvalidArgument> {
    if name.is_empty() || name.len() > MAX_METRIC_NAME_BYTES {
        let message = format!("{} bytes; 1 to {MAX_METRIC_NAME_BYTES} of UTF-8", name.len());
        return Err(InvalidArgument::new("metric_name", message));
    }
    check_printable("metric_name", name)
}

fn check_printable(argument: &'static str, text: &str) -> Result<(), InvalidArgument> {
    match text.chars().find(|c| c.is_control()) {
        None => Ok(()),
        Some(control) => Err(InvalidArgument::new(
            argument,
            format!("{text:?} has the control character {control:?}; only printable ones"),
        )),
    }
}

fn check_labels(sorted: &[(&str, &str)]) -> Result<(), InvalidArgument> {
    let refuse = |message| Err(InvalidArgument::new("labels", message));
    if sorted.len() > MAX_LABELS {
        return refuse(format!("{} labels; at most {MAX_LABELS}", sorted.len()));
    }
    for (key, value) in sorted {
        if key.is_empty() || key.len() > MAX_LABEL_BYTES || value.len() > MAX_LABEL_BYTES {
            return refuse(format!(
                "{key:?}: {value:?}; keys are 1 to {MAX_LABEL_BYTES} bytes, values at most as many"
            ));
        }
        check_printable("labels", key)?;
        check_printable("labels", value)?;
    }
    match sorted.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(pair) => refuse(format!("the key {:?} is given twice", pair[0].0)),
        None => Ok(()),
    }
}

/// Ids appear in URLs.
fn check_env_id(env_id: &str) -> Result<(), InvalidArgument> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._~:-".contains(&byte);
    let whole = (1..=MAX_ENV_ID_BYTES).contains(&env_id.len()) && env_id.bytes().all(allowed);
    if whole && env_id != "." && env_id != ".." {
        return Ok(());
    }
    let message =
        format!("{env_id:?}; 1 to {MAX_ENV_ID_BYTES} of A-Z a-z 0-9 . _ ~ : - (not . or ..)");
    Err(InvalidArgument::new("env_id", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_per_identity_whatever_the_order_of_labels() {
        let mut registry = Registry::default();
        let ab = registry.metric("loss", Scale::MlStep, &[("a", "1"), ("b", "2")]).unwrap();
        assert_eq!(registry.metric("loss", Scale::MlStep, &[("b", "2"), ("a", "1")]), Ok(ab));
        let others = [
            registry.metric("loss", Scale::MlStep, &[]).unwrap(),
            registry.metric("loss", Scale::Episode, &[]).unwrap(),
            registry.metric("loss", Scale::MlStep, &[("a", "1")]).unwrap(),
            registry.metric("lossa", Scale::MlStep, &[("a", "1"), ("b", "2")]).unwrap(),
        ];
        assert_eq!(others, [2, 3, 4, 5].map(MetricNo));
    }

    #[test]
    fn numbers_stay_when_the_tables_grow() {
        let mut registry = Registry::default();
        for round in 0..2 {
            for i in 0..1_000_u32 {
                let label = i.to_string();
                let no = registry.metric("m", Scale::MlStep, &[("i", &label)]).unwrap();
                assert_eq!((round, no), (round, MetricNo(i + 1)));
                assert_eq!(registry.env(&label), Ok(EnvNo(i + 1)));
            }
        }
    }

    #[test]
    fn a_name_outside_the_limits_is_refused_and_gets_no_number() {
        let mut registry = Registry::default();
        let long = "x".repeat(MAX_METRIC_NAME_BYTES + 1);
        for name in ["", "a\nb", &long] {
            let error = registry.metric(name, Scale::MlStep, &[]).unwrap_err();
            assert_eq!(error.argument, "metric_name");
        }
        let long = "x".repeat(MAX_LABEL_BYTES + 1);
        for labels in
            [[("a", "1"), ("a", "2")], [("", "1"), ("a", "2")], [("k", &long), ("a", "2")]]
        {
            let error = registry.metric("m", Scale::MlStep, &labels).unwrap_err();
            assert_eq!(error.argument, "labels");
        }
        for env_id in ["", ".", "..", "a/b", "ä", "a b", &"x".repeat(129)] {
            assert_eq!(registry.env(env_id).unwrap_err().argument, "env_id");
        }
        assert_eq!(registry.metric("train loss é", Scale::MlStep, &[("k", "")]), Ok(MetricNo(1)));
        assert_eq!(registry.env("A-z.0_9~:"), Ok(EnvNo(1)));
    }

    #[test]
    fn a_number_is_declared_once_until_the_ring_is_lost() {
        let mut registry = Registry::default();
        let (metric, env) =
            (registry.metric("m", Scale::MlStep, &[]).unwrap(), registry.env("e").unwrap());
        assert!(registry.metric_is_undeclared(metric) && registry.env_is_undeclared(env));
        registry.metric_was_declared(metric);
        registry.env_was_declared(env);
        registry.env_was_declared(env);
        assert!(!registry.metric_is_undeclared(metric) && !registry.has_undeclared_envs());
        registry.declare_all_again();
        assert!(registry.metric_is_undeclared(metric) && registry.env_is_undeclared(env));
    }
}
