//! From the strings of a call to the engine's numbers.
//!
//! A name is nearly always the same string object as in the call before, so it is looked up by the
//! object's address first; a strong reference keeps the address from being reused. What is not
//! found there is looked up by its text, by the engine. The keys of a mapping are mostly those of the
//! mapping before, in the same order, be they the same objects or built anew: each is compared with
//! the one in its place first.

use std::collections::VecDeque;
use std::hash::Hash;
use std::sync::Arc;

use hashbrown::HashMap;
use metrana_engine::types::{EnvNo, MetricNo, Scale};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyInt, PyList, PyString, PyTuple, PyType};

use crate::error::{invalid, validation};
use crate::writer::Writer;

/// Most strings of each kind that are kept alive to be found by their addresses: some 10 MB of common
/// names, 45 MB of the longest.
const MAX_ADDRESSES: usize = 65_536;
/// Most strings of one metric or environment that are kept: where it is a new object for each call,
/// keeping them costs more than looking at the text.
const MAX_OBJECTS: usize = 8;
/// Where that is reached, one in so many new objects takes the place of an old one: seldom enough to
/// cost nothing, and a name that is the same object from now on is soon found.
const TRIES: u8 = 16;
/// Most lists of environment ids that are remembered: training, evaluation, and some to spare.
const MAX_LISTS: usize = 8;
/// The label that `evaluation=True` adds.
const EVALUATION: &str = "evaluation";

/// What is known of a writer's names.
///
/// Its lock is held for one look or one change, never while Python code may run: reading labels or
/// making an error may log in turn, in this thread, in a signal handler or in another thread, and
/// would wait for ever. So it is only ever locked by a thread that is attached to Python and that
/// stays so, hence never contended, and free in a forked child.
#[derive(Default)]
pub struct Names {
    metrics: Known<(usize, u8), MetricNo>,
    envs: Known<usize, EnvNo>,
    /// What the entries of the last mapping were, in order: mostly those of the next one too.
    last_mapping: Vec<LastEntry>,
    lists: Vec<EnvList>,
    /// How often a list was looked for or remembered: what each was last used at.
    list_uses: u64,
}

/// Numbers by what is made of a string's address.
struct Known<K, N> {
    by_address: HashMap<K, (N, Py<PyString>), foldhash::fast::FixedState>,
    /// What is kept of each number.
    kept: Vec<Kept<K>>,
    /// Whose turn it is to give an object up for a number that has none.
    next: usize,
}

struct Kept<K> {
    /// The oldest first.
    keys: VecDeque<K>,
    /// Objects that were not kept since the last one that was.
    refused: u8,
}

impl<K, N> Default for Known<K, N> {
    fn default() -> Self {
        Self { by_address: HashMap::default(), kept: Vec::new(), next: 0 }
    }
}

impl<K> Default for Kept<K> {
    fn default() -> Self {
        Self { keys: VecDeque::new(), refused: 0 }
    }
}

impl<K: Copy + Eq + Hash, N: Copy> Known<K, N> {
    #[inline]
    fn find(&self, key: &K) -> Option<N> {
        self.by_address.get(key).map(|(number, _)| *number)
    }

    /// Only exact strings are kept: to drop one runs no Python code. Whether another one was dropped,
    /// whose address may be anybody's from now on.
    fn keep(&mut self, key: K, number: N, index: u32, string: &Bound<'_, PyString>) -> bool {
        if self.by_address.contains_key(&key) {
            return false; // another thread was quicker
        }
        let index = index as usize;
        if self.kept.len() <= index {
            self.kept.resize_with(index + 1, Kept::default);
        }
        let own = &mut self.kept[index];
        let is_full = own.keys.len() >= MAX_OBJECTS || self.by_address.len() >= MAX_ADDRESSES;
        if is_full && own.refused + 1 < TRIES {
            own.refused += 1;
            return false;
        }
        own.refused = 0;
        if is_full {
            self.make_room(index);
        }
        self.kept[index].keys.push_back(key);
        self.by_address.insert(key, (number, string.clone().unbind()));
        is_full
    }

    /// Drops the number's oldest object, or one of the next number that has any.
    #[cold]
    fn make_room(&mut self, index: usize) {
        let mut from = index;
        while self.kept[from].keys.is_empty() {
            self.next = (self.next + 1) % self.kept.len();
            from = self.next;
        }
        if let Some(oldest) = self.kept[from].keys.pop_front() {
            self.by_address.remove(&oldest);
        }
    }
}

/// An entry of a mapping.
struct LastEntry {
    /// Of its name, if that object is kept; else 0, which is no object's.
    address: usize,
    tag: u8,
    number: MetricNo,
    name: String,
}

/// A list of environment ids, by the addresses of its elements, all of which are constant.
struct EnvList {
    ids: Vec<Py<PyAny>>,
    numbers: Arc<[EnvNo]>,
    last_use: u64,
}

/// What identifies a metric beside its name.
#[derive(Clone, Copy)]
pub struct Qualifiers<'a, 'py> {
    pub scale: Scale,
    pub labels: Option<&'a Bound<'py, PyAny>>,
    pub evaluation: bool,
}

impl Qualifiers<'_, '_> {
    /// What tells metrics of one name apart; None with labels, a mapping that may change behind its
    /// address.
    pub fn tag(&self) -> Option<u8> {
        self.labels.is_none().then(|| self.scale as u8 | u8::from(self.evaluation) << 2)
    }
}

/// The environments of a call.
pub enum Envs {
    One([EnvNo; 1]),
    Many(Arc<[EnvNo]>),
}

impl Envs {
    pub fn numbers(&self) -> &[EnvNo] {
        match self {
            Self::One(number) => number,
            Self::Many(numbers) => numbers,
        }
    }
}

/// A string's text, read without running Python code; None if it is no UTF-8. The error that says so
/// is an object to be made, for which Python before 3.12 may collect garbage, with finalizers and all.
fn inert_text<'a>(string: &'a Borrowed<'_, '_, PyString>) -> Option<&'a str> {
    // SAFETY: a string is at hand, so this thread is attached to Python.
    let collects = unsafe { ffi::PyGC_Disable() } != 0;
    let text = string.to_str().ok();
    if collects {
        // SAFETY: as above.
        unsafe { ffi::PyGC_Enable() };
    }
    text
}

/// The number of a metric.
///
/// # Errors
///
/// `MetranaValidationError` for a name or labels outside the limits.
pub fn metric<'py>(
    writer: &Writer,
    name: &Bound<'py, PyString>,
    qualifiers: Qualifiers<'_, 'py>,
) -> PyResult<MetricNo> {
    let Some(tag) = qualifiers.tag() else { return metric_by_text(writer, name, qualifiers) };
    if let Some(number) = writer.names.lock().known_metric(name, tag) {
        return Ok(number);
    }
    let number = metric_by_text(writer, name, qualifiers)?;
    if name.is_exact_instance_of::<PyString>() {
        writer.names.lock().remember_metric(name, tag, number);
    }
    Ok(number)
}

fn metric_by_text<'py>(
    writer: &Writer,
    name: &Bound<'py, PyString>,
    qualifiers: Qualifiers<'_, 'py>,
) -> PyResult<MetricNo> {
    let py = name.py();
    let entries = match qualifiers.labels {
        Some(labels) => label_entries(labels)?,
        None => Vec::new(),
    };
    let mut labels = Vec::with_capacity(entries.len() + 1);
    for (key, value) in &entries {
        labels.push((utf8(key, "labels")?, utf8(value, "labels")?));
    }
    if qualifiers.evaluation && !labels.iter().any(|(key, _)| *key == EVALUATION) {
        labels.push((EVALUATION, "true"));
    }
    writer
        .metric(py, utf8(name, "metric_name")?, qualifiers.scale, &labels)
        .map_err(|error| invalid(py, &error))
}

type LabelEntry<'py> = (Bound<'py, PyString>, Bound<'py, PyString>);

fn label_entries<'py>(labels: &Bound<'py, PyAny>) -> PyResult<Vec<LabelEntry<'py>>> {
    let labels = as_dict(labels)
        .ok_or_else(|| refused(labels, "labels", "a mapping of strings to strings"))?;
    labels
        .iter()
        .map(|(key, value)| {
            let key = key
                .cast_into::<PyString>()
                .map_err(|error| refused(&error.into_inner(), "a key of labels", "a string"))?;
            let value = value.cast_into::<PyString>().map_err(|error| {
                let name = format!("labels[{:?}]", key.to_string_lossy());
                refused(&error.into_inner(), &name, "a string")
            })?;
            Ok((key, value))
        })
        .collect()
}

/// A mapping as a dict: itself if it is one, else a copy. None: it is no mapping.
pub fn as_dict<'py>(mapping: &Bound<'py, PyAny>) -> Option<Bound<'py, PyDict>> {
    if let Ok(dict) = mapping.cast::<PyDict>() {
        return Some(dict.clone());
    }
    let py = mapping.py();
    mapping.cast::<pyo3::types::PyMapping>().ok()?;
    py.get_type::<PyDict>().call1((mapping,)).ok()?.cast_into().ok()
}

/// The environments that `env_id` names; None is the environment `default`.
///
/// # Errors
///
/// `MetranaValidationError` for what is no id, or no list of ids.
pub fn envs(writer: &Writer, py: Python<'_>, env_id: Option<&Bound<'_, PyAny>>) -> PyResult<Envs> {
    let Some(env_id) = env_id else {
        return one(writer, intern!(py, "default"));
    };
    if let Ok(id) = env_id.cast::<PyString>() {
        return one(writer, id);
    }
    if let Ok(list) = env_id.cast::<PyList>() {
        return many(writer, list);
    }
    if env_id.is_exact_instance_of::<PyInt>() {
        // Python refuses to write out thousands of digits.
        let digits =
            env_id.str().map_err(|_| refused(env_id, "env_id", "an int of at most 128 digits"))?;
        return one(writer, &digits);
    }
    let ids = converted(env_id)?;
    match ids.cast::<PyList>() {
        Ok(list) => many(writer, list),
        Err(_) => one(writer, ids.cast::<PyString>()?),
    }
}

/// One environment, where a list would make no sense.
///
/// # Errors
///
/// `MetranaValidationError` for what is not one id.
pub fn env(writer: &Writer, env_id: &Bound<'_, PyAny>) -> PyResult<EnvNo> {
    match envs(writer, env_id.py(), Some(env_id))? {
        Envs::One([number]) => Ok(number),
        Envs::Many(_) => Err(refused(env_id, "env_id", "one string or int")),
    }
}

fn one(writer: &Writer, id: &Bound<'_, PyString>) -> PyResult<Envs> {
    if let Some(number) = writer.names.lock().known_env(id) {
        return Ok(Envs::One([number]));
    }
    let number = env_by_text(writer, id)?;
    if id.is_exact_instance_of::<PyString>() {
        writer.names.lock().remember_env(id, number);
    }
    Ok(Envs::One([number]))
}

fn many(writer: &Writer, list: &Bound<'_, PyList>) -> PyResult<Envs> {
    if let Some(numbers) = writer.names.lock().find_list(list) {
        return Ok(Envs::Many(numbers));
    }
    // Read once: what converts its elements, and other threads meanwhile, may change the list, and
    // what is remembered must be what was converted.
    let ids: Vec<_> = list.iter().collect();
    let numbers = if let Some(numbers) = resolve(writer, &ids)? {
        numbers
    } else {
        let strings = converted(PyTuple::new(list.py(), &ids)?.as_any())?.cast_into::<PyList>()?;
        resolve(writer, &strings.iter().collect::<Vec<_>>())?
            .ok_or_else(|| refused(list, "env_id", "a list of strings or ints"))?
    };
    if are_constant(list.py(), &ids)? {
        writer.names.lock().remember_list(ids, &numbers);
    }
    Ok(Envs::Many(numbers))
}

/// The numbers of strings; None if anything else is among them.
fn resolve(writer: &Writer, ids: &[Bound<'_, PyAny>]) -> PyResult<Option<Arc<[EnvNo]>>> {
    let mut numbers = Vec::with_capacity(ids.len());
    for id in ids {
        match id.cast::<PyString>() {
            Ok(id) => numbers.push(env_by_text(writer, id)?),
            Err(_) => return Ok(None),
        }
    }
    Ok(Some(numbers.into()))
}

fn env_by_text(writer: &Writer, id: &Bound<'_, PyString>) -> PyResult<EnvNo> {
    let py = id.py();
    writer.env(py, utf8(id, "env_id")?).map_err(|error| invalid(py, &error))
}

/// Whether each of the ids is what it is for as long as it lives. Others, arrays of no dimensions
/// for one, become another id at the same address.
fn are_constant(py: Python<'_>, ids: &[Bound<'_, PyAny>]) -> PyResult<bool> {
    static NUMPY_KINDS: PyOnceLock<Vec<Py<PyType>>> = PyOnceLock::new();
    for id in ids {
        if id.is_exact_instance_of::<PyString>() || id.is_exact_instance_of::<PyInt>() {
            continue;
        }
        let kinds = NUMPY_KINDS.get_or_try_init(py, || {
            py.import("metrana.values")?.getattr("NUMPY_ID_KINDS")?.extract()
        })?;
        let own = id.get_type();
        if !kinds.iter().any(|kind| own.is(kind)) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn converted<'py>(env_id: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    static CONVERT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    CONVERT.import(env_id.py(), "metrana.values", "as_env_ids")?.call1((env_id,))
}

impl Names {
    /// The number of a metric that was met before, by its name's address.
    #[inline]
    fn known_metric(&self, name: &Bound<'_, PyString>, tag: u8) -> Option<MetricNo> {
        self.metrics.find(&(name.as_ptr().addr(), tag))
    }

    /// The same for the `index`-th entry of a mapping, where all before it were found.
    #[inline]
    pub fn known_entry(
        &mut self,
        index: usize,
        name: Borrowed<'_, '_, PyAny>,
        tag: u8,
    ) -> Option<MetricNo> {
        let address = name.as_ptr().addr();
        let last = self.last_mapping.get(index).filter(|last| last.tag == tag);
        if let Some(last) = last
            && last.address == address
        {
            return Some(last.number);
        }
        let name = name.cast::<PyString>().ok()?;
        let name = inert_text(&name)?;
        if let Some(last) = last
            && last.name == name
        {
            return Some(last.number);
        }
        let number = self.metrics.find(&(address, tag))?;
        self.remember_entry(index, LastEntry { address, tag, number, name: name.to_owned() });
        Some(number)
    }

    /// Remembers what the entries of a mapping were found to be by their text.
    pub fn remember_mapping<'a>(
        &mut self,
        entries: impl Iterator<Item = (&'a Bound<'a, PyString>, MetricNo)>,
        tag: u8,
    ) {
        for (index, (name, number)) in entries.enumerate() {
            let Ok(name) = name.to_str() else { return };
            let known = self.last_mapping.get(index);
            if known.is_none_or(|last| last.tag != tag || last.name != name) {
                let name = name.to_owned();
                self.remember_entry(index, LastEntry { address: 0, tag, number, name });
            }
        }
    }

    fn remember_entry(&mut self, index: usize, entry: LastEntry) {
        if index == self.last_mapping.len() {
            self.last_mapping.push(entry);
        } else if let Some(last) = self.last_mapping.get_mut(index) {
            *last = entry;
        }
    }

    fn remember_metric(&mut self, name: &Bound<'_, PyString>, tag: u8, number: MetricNo) {
        if self.metrics.keep((name.as_ptr().addr(), tag), number, number.0, name) {
            self.last_mapping.clear();
        }
    }

    #[inline]
    fn known_env(&self, id: &Bound<'_, PyString>) -> Option<EnvNo> {
        self.envs.find(&id.as_ptr().addr())
    }

    fn remember_env(&mut self, id: &Bound<'_, PyString>, number: EnvNo) {
        self.envs.keep(id.as_ptr().addr(), number, number.0, id);
    }

    fn find_list(&mut self, list: &Bound<'_, PyList>) -> Option<Arc<[EnvNo]>> {
        let known = self.lists.iter_mut().find(|known| known.is(list))?;
        self.list_uses += 1;
        known.last_use = self.list_uses;
        Some(Arc::clone(&known.numbers))
    }

    /// Only constant ids are kept: to drop one runs no Python code.
    fn remember_list(&mut self, ids: Vec<Bound<'_, PyAny>>, numbers: &Arc<[EnvNo]>) {
        let ids = ids.into_iter().map(Bound::unbind).collect();
        self.list_uses += 1;
        let entry = EnvList { ids, numbers: Arc::clone(numbers), last_use: self.list_uses };
        if self.lists.len() < MAX_LISTS {
            self.lists.push(entry);
        } else if let Some(oldest) = self.lists.iter_mut().min_by_key(|list| list.last_use) {
            // Those of the environments whose episode ended come once; that of all comes each step.
            *oldest = entry;
        }
    }
}

impl EnvList {
    fn is(&self, list: &Bound<'_, PyList>) -> bool {
        self.ids.len() == list.len()
            && self.ids.iter().zip(0..).all(|(id, index)| {
                // SAFETY: the list is alive, the index is below its length, and no Python code runs
                // in between that could shorten it. The borrowed element is only compared.
                let item = unsafe { ffi::PyList_GetItem(list.as_ptr(), index) };
                item == id.as_ptr()
            })
    }
}

/// The text of a string.
///
/// # Errors
///
/// `MetranaValidationError` for lone surrogates, which UTF-8 has no bytes for.
pub fn utf8<'a>(text: &'a Bound<'_, PyString>, name: &str) -> PyResult<&'a str> {
    text.to_str()
        .map_err(|_| validation(text.py(), format!("{name}: must be text without lone surrogates")))
}

/// The error for an argument of the wrong kind, in the client's one wording.
pub fn refused(value: &Bound<'_, PyAny>, name: &str, allowed: &str) -> PyErr {
    static REFUSAL: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let error = REFUSAL
        .import(value.py(), "metrana.checks", "refusal")
        .and_then(|refusal| refusal.call1((name, value, allowed)));
    match error {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}
