//! The engine's log: `engine.log` in the writer's folder, for whoever asks why data is late.
//!
//! ```text
//! 2026-11-24T23:13:25.123Z INFO  connecting to https://metrana.example.org
//! ```
//!
//! It is written by background threads, and while a run is opened and closed, never by a logging
//! call. It is small: of each level at most [`LINES_PER_WINDOW`] lines a minute are written and the
//! others counted, and behind [`MAX_BYTES`] nothing more. Nothing depends on it, so an error of
//! writing it is nobody's concern. Keys are no part of any line; a URL's user and password, and the
//! key the log was told of, are cut out of what servers and libraries say.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::sync::Mutex;

use crate::platform;

/// The log's name in the writer's folder.
pub const ENGINE_LOG: &str = "engine.log";
/// Largest log, but for its last line.
const MAX_BYTES: usize = 1 << 20;
const MAX_LINE_CHARS: usize = 2000;
const LINES_PER_WINDOW: u32 = 100;
const WINDOW: Duration = Duration::from_secs(60);
/// What stands where a secret stood.
const CUT: &str = "…";

/// How much is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Each batch sent.
    Trace,
    /// Each batch sealed, each acknowledgement.
    Debug,
    /// Openings, connections, deliveries.
    #[default]
    Info,
    /// What goes on in spite of it.
    Warn,
    /// What does not.
    Error,
    /// Nothing; not a level of a line.
    Off,
}

impl LogLevel {
    const NAMES: [(Self, &'static str); 6] = [
        (Self::Trace, "TRACE"),
        (Self::Debug, "DEBUG"),
        (Self::Info, "INFO"),
        (Self::Warn, "WARN"),
        (Self::Error, "ERROR"),
        (Self::Off, "OFF"),
    ];

    /// As in the contract: `TRACE` … `OFF`.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize].1
    }

    /// The level of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, known)| *known == name).map(|(level, _)| *level)
    }
}

/// See the module. Any thread may write to it.
#[derive(Debug)]
pub struct EngineLog {
    level: LogLevel,
    secret: Option<String>,
    /// `None`: nothing is written, by choice or because it cannot be.
    state: Mutex<Option<State>>,
}

#[derive(Debug)]
struct State {
    file: File,
    bytes: usize,
    /// By level.
    windows: [Window; LogLevel::NAMES.len()],
}

#[derive(Clone, Copy, Debug)]
struct Window {
    began: Instant,
    lines: u32,
    left_out: u64,
}

impl EngineLog {
    /// The log of the writer in this folder. `secret` is cut out of every line.
    pub fn open(folder: &Path, level: LogLevel, secret: Option<String>) -> Self {
        let mut options = platform::private_file();
        let file = (level < LogLevel::Off)
            .then(|| options.create(true).append(true).open(folder.join(ENGINE_LOG)))
            .and_then(Result::ok);
        let window = Window { began: Instant::now(), lines: 0, left_out: 0 };
        let state =
            file.map(|file| State { file, bytes: 0, windows: [window; LogLevel::NAMES.len()] });
        let secret = secret.filter(|secret| !secret.is_empty());
        Self { level, secret, state: Mutex::new(state) }
    }

    /// One that writes nothing.
    pub fn off() -> Self {
        Self { level: LogLevel::Off, secret: None, state: Mutex::default() }
    }

    /// Writes a line, if its level is wanted and there is room. Blocks on the disk.
    pub fn write(&self, level: LogLevel, text: fmt::Arguments<'_>) {
        if level < self.level {
            return;
        }
        let mut state = self.state.lock();
        let Some(open) = &mut *state else { return };
        let now = Instant::now();
        let window = &mut open.windows[level as usize];
        if now.duration_since(window.began) >= WINDOW {
            let left_out = window.left_out;
            *window = Window { began: now, lines: 0, left_out: 0 };
            open.tell_of(level, left_out);
        }
        let window = &mut open.windows[level as usize];
        if window.lines == LINES_PER_WINDOW {
            window.left_out += 1;
            return;
        }
        window.lines += 1;
        open.line(level, &self.without_secrets(text.to_string()));
        if open.bytes >= MAX_BYTES {
            open.line(level, "the log is full: what comes later is left out");
            *state = None;
        }
    }

    pub fn trace(&self, text: fmt::Arguments<'_>) {
        self.write(LogLevel::Trace, text);
    }

    pub fn debug(&self, text: fmt::Arguments<'_>) {
        self.write(LogLevel::Debug, text);
    }

    pub fn info(&self, text: fmt::Arguments<'_>) {
        self.write(LogLevel::Info, text);
    }

    pub fn warn(&self, text: fmt::Arguments<'_>) {
        self.write(LogLevel::Warn, text);
    }

    pub fn error(&self, text: fmt::Arguments<'_>) {
        self.write(LogLevel::Error, text);
    }

    fn without_secrets(&self, mut text: String) -> String {
        if let Some(secret) = &self.secret {
            text = text.replace(secret, CUT);
        }
        let mut searched = 0;
        while let Some(found) = text[searched..].find("://") {
            let begin = searched + found + 3;
            let authority = text[begin..].find(|c: char| c == '/' || c == '"' || c.is_whitespace());
            let end = authority.map_or(text.len(), |length| begin + length);
            if let Some(at) = text[begin..end].rfind('@') {
                text.replace_range(begin..begin + at, CUT);
            }
            searched = begin;
        }
        text
    }
}

impl Drop for EngineLog {
    fn drop(&mut self) {
        if let Some(state) = self.state.get_mut() {
            for (level, _) in LogLevel::NAMES {
                state.tell_of(level, state.windows[level as usize].left_out);
            }
        }
    }
}

impl State {
    fn tell_of(&mut self, level: LogLevel, left_out: u64) {
        if left_out > 0 {
            self.line(level, &format!("{left_out} lines of this level were left out"));
        }
    }

    fn line(&mut self, level: LogLevel, text: &str) {
        let mut line = String::with_capacity(text.len() + 32);
        // Writing to a string cannot fail.
        let _ = write!(line, "{} {:5} ", timestamp(SystemTime::now()), level.name());
        // A line is a line, whatever a server's message holds.
        let printable = text.chars().map(|c| if c.is_control() { ' ' } else { c });
        line.extend(printable.take(MAX_LINE_CHARS));
        line.push('\n');
        self.bytes += line.len();
        let _ = self.file.write_all(line.as_bytes());
    }
}

/// `2026-11-24T23:13:25.123Z`.
fn timestamp(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let ms = since.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// Year, month and day of the Gregorian calendar, by the days since 1970-01-01 (Howard Hinnant's
/// `civil_from_days`, "chrono-Compatible Low-Level Date Algorithms").
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    // Years begin in March, so that the leap day is their last.
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(folder: &tempfile::TempDir) -> Vec<String> {
        let text = std::fs::read_to_string(folder.path().join(ENGINE_LOG)).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn test_lines_below_the_level_are_not_written_and_those_of_off_make_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let log = EngineLog::open(folder.path(), LogLevel::Warn, None);
        log.info(format_args!("not this"));
        log.warn(format_args!("this, {}", 1));
        log.error(format_args!("two\nlines"));
        let lines = read(&folder);
        let texts: Vec<_> = lines.iter().map(|line| &line[25..]).collect();
        assert_eq!(texts, ["WARN  this, 1", "ERROR two lines"]);
        let elsewhere = tempfile::tempdir().unwrap();
        EngineLog::open(elsewhere.path(), LogLevel::Off, None).error(format_args!("lost"));
        assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    }

    #[test]
    fn test_a_flood_of_one_level_leaves_the_others_room_and_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let log = EngineLog::open(folder.path(), LogLevel::Trace, None);
        for number in 0..LINES_PER_WINDOW + 7 {
            log.debug(format_args!("{number}"));
        }
        log.warn(format_args!("seen"));
        assert_eq!(read(&folder).len() as u32, LINES_PER_WINDOW + 1);
        drop(log);
        assert!(
            read(&folder).last().unwrap().ends_with("DEBUG 7 lines of this level were left out")
        );
    }

    #[test]
    fn test_what_was_left_out_is_told_in_the_next_window() {
        let folder = tempfile::tempdir().unwrap();
        let log = EngineLog::open(folder.path(), LogLevel::Trace, None);
        let earlier = Instant::now().checked_sub(WINDOW).unwrap();
        log.state.lock().as_mut().unwrap().windows[LogLevel::Info as usize] =
            Window { began: earlier, lines: LINES_PER_WINDOW, left_out: 3 };
        log.info(format_args!("again"));
        let lines = read(&folder);
        assert!(lines[0].ends_with("INFO  3 lines of this level were left out"), "{lines:?}");
        assert!(lines[1].ends_with("INFO  again"), "{lines:?}");
    }

    #[test]
    fn test_a_full_log_says_so_once_and_ends() {
        let folder = tempfile::tempdir().unwrap();
        let log = EngineLog::open(folder.path(), LogLevel::Trace, None);
        log.state.lock().as_mut().unwrap().bytes = MAX_BYTES - 1;
        for _ in 0..4 {
            log.info(format_args!("{}", "x".repeat(MAX_BYTES)));
        }
        let lines = read(&folder);
        assert_eq!(lines.len(), 2);
        assert!(lines[0].len() < 2 * MAX_LINE_CHARS);
        assert!(lines[1].ends_with("INFO  the log is full: what comes later is left out"));
    }

    #[test]
    fn test_secrets_are_cut_out_of_what_others_say() {
        let folder = tempfile::tempdir().unwrap();
        let log = EngineLog::open(folder.path(), LogLevel::Info, Some("k3y".to_owned()));
        log.info(format_args!("cannot reach https://user:pass@host:1/x: k3y is wrong, http://a@b"));
        log.info(format_args!("http://host/a@b"));
        let lines = read(&folder);
        assert!(lines[0].ends_with("cannot reach https://…@host:1/x: … is wrong, http://…@b"));
        assert!(lines[1].ends_with("http://host/a@b"));
    }

    #[test]
    fn test_times_are_utc_with_milliseconds() {
        let at = |ms| timestamp(UNIX_EPOCH + Duration::from_millis(ms));
        assert_eq!(at(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_782_400_007), "2000-02-29T00:00:00.007Z");
        assert_eq!(at(1_795_562_005_123), "2026-11-24T23:13:25.123Z");
    }

    #[test]
    fn test_levels_have_the_contracts_names() {
        for (level, name) in LogLevel::NAMES {
            assert_eq!((level.name(), LogLevel::from_name(name)), (name, Some(level)));
        }
        assert_eq!(LogLevel::from_name("LOUD"), None);
    }
}
