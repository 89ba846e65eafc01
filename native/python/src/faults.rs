//! Faults of background threads on their way to the user, as `error_strategy` says.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use metrana_engine::engine::Engine;
use metrana_engine::sync::Mutex;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::error::sender;
use crate::fork::wait_until_forked;

/// How faults come to light.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorStrategy {
    Silent,
    Warn,
    RaiseOnLog,
    RaiseOnClose,
}

impl ErrorStrategy {
    /// The strategy of this name, as `metrana.ErrorStrategy` spells it.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "silent" => Some(Self::Silent),
            "warn" => Some(Self::Warn),
            "raise_on_log" => Some(Self::RaiseOnLog),
            "raise_on_close" => Some(Self::RaiseOnClose),
            _ => None,
        }
    }
}

/// Most messages kept for `check_sender_errors()`.
const MAX_KEPT: usize = 1000;

/// With strategy `warn`, one log call in so many looks for faults: looking takes a lock.
const CALLS_PER_LOOK: u32 = 16;

/// What went wrong and nobody asked for yet.
pub struct Faults {
    strategy: ErrorStrategy,
    kept: Mutex<Kept>,
    /// Messages forgotten because too many were kept.
    evicted: AtomicU64,
    /// Log calls so far. Approximate if threads race, which does no harm.
    calls: AtomicU32,
}

#[derive(Default)]
struct Kept {
    messages: Vec<String>,
    /// Kinds that a warning was made of.
    warned: HashSet<String>,
}

impl Faults {
    pub fn new(strategy: ErrorStrategy) -> Self {
        Self {
            strategy,
            kept: Mutex::default(),
            evicted: AtomicU64::new(0),
            calls: AtomicU32::new(0),
        }
    }

    /// How they come to light.
    pub fn strategy(&self) -> ErrorStrategy {
        self.strategy
    }

    /// How many messages were forgotten here. The engine counts those it forgot itself.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// After a log call.
    ///
    /// # Errors
    ///
    /// As [`Self::show`].
    #[inline]
    pub fn show_now_and_then(&self, py: Python<'_>, engine: &Engine) -> PyResult<()> {
        let calls = self.calls.load(Ordering::Relaxed);
        self.calls.store(calls.wrapping_add(1), Ordering::Relaxed);
        if self.strategy == ErrorStrategy::RaiseOnLog || calls.is_multiple_of(CALLS_PER_LOOK) {
            return self.show(py, engine);
        }
        Ok(())
    }

    /// After a flush.
    ///
    /// # Errors
    ///
    /// `MetranaSenderError` if that is the strategy; whatever a warning raises that is made an error.
    #[cold]
    pub fn show(&self, py: Python<'_>, engine: &Engine) -> PyResult<()> {
        if self.strategy == ErrorStrategy::Silent {
            return Ok(());
        }
        let new_count = self.collect(py, engine);
        match self.strategy {
            ErrorStrategy::RaiseOnLog => self.raise(py),
            ErrorStrategy::Warn if new_count > 0 => self.warn(py, new_count),
            _ => Ok(()),
        }
    }

    /// At the end of a close.
    ///
    /// # Errors
    ///
    /// As [`Self::show`], also with the strategy `raise_on_close`.
    pub fn show_at_close(&self, py: Python<'_>, engine: &Engine) -> PyResult<()> {
        self.show(py, engine)?;
        if self.strategy == ErrorStrategy::RaiseOnClose { self.raise(py) } else { Ok(()) }
    }

    /// Takes all messages, the oldest first.
    pub fn take(&self, py: Python<'_>, engine: &Engine) -> Vec<String> {
        self.collect(py, engine);
        std::mem::take(&mut self.kept.lock().messages)
    }

    /// Takes over what is new, mostly nothing, and says how much it was.
    fn collect(&self, py: Python<'_>, engine: &Engine) -> usize {
        wait_until_forked(py);
        let new = engine.take_errors();
        let new_count = new.len();
        if new_count > 0 {
            let mut kept = self.kept.lock();
            kept.messages.extend(new);
            let excess = kept.messages.len().saturating_sub(MAX_KEPT);
            kept.messages.drain(..excess);
            self.evicted.fetch_add(excess as u64, Ordering::Relaxed);
        }
        new_count
    }

    fn raise(&self, py: Python<'_>) -> PyResult<()> {
        let messages = std::mem::take(&mut self.kept.lock().messages);
        if messages.is_empty() { Ok(()) } else { Err(sender(py, messages.join("; "))) }
    }

    /// Warns of the last `new_count` messages, as far as their kinds are new.
    fn warn(&self, py: Python<'_>, new_count: usize) -> PyResult<()> {
        static WARN: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let new: Vec<String> = {
            let mut kept = self.kept.lock();
            let Kept { messages, warned } = &mut *kept;
            let known = messages.len().saturating_sub(new_count);
            messages[known..]
                .iter()
                .filter(|message| warned.insert(kind(message)))
                .cloned()
                .collect()
        };
        for message in new {
            WARN.import(py, "metrana.faults", "warn")?.call1((message,))?;
        }
        Ok(())
    }
}

/// What messages have in common that only count differently: one may come for each batch.
fn kind(message: &str) -> String {
    message.chars().filter(|character| !character.is_ascii_digit()).collect()
}
