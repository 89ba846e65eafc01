//! Spools of other processes, for whoever delivers them: the server, `metrana sync`, `Client`.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use metrana_engine::named_spool::NamedSpoolReader;
use metrana_engine::platform::{self, Filesystem};
use metrana_engine::recovery::{RecoveryOptions, RecoveryReport, RingOutcome, recover};
use metrana_engine::ring::DeadRing;
use metrana_engine::run_folder::{
    self, Liveness, RunFolderError, SenderKind, Watermark, WriterLock,
};
use metrana_engine::seal::SealSettings;
use metrana_engine::spool::{self, Damage, Frame, SpoolEvent, SpoolOptions};
use metrana_engine::sync::Mutex;
use metrana_engine::types::{BatchKind, Compression, Seq};
use pyo3::exceptions::{PyBlockingIOError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

/// Batches sealed from a dead writer's ring: the default of `max_msg_size`, less its overhead.
const RECOVERED_PAYLOAD_BYTES: usize = 1024 * 1024 - metrana_engine::config::MESSAGE_OVERHEAD_BYTES;

fn runtime_error(error: &dyn std::error::Error) -> PyErr {
    PyRuntimeError::new_err(error.to_string())
}

/// A frame of a spool.
#[pyclass(frozen, get_all, module = "metrana._native")]
pub struct SpoolMessage {
    /// `declarations`, `points`, `attributes` or `renderings`.
    kind: &'static str,
    /// The batch's sequence number; 0 for declarations.
    seq: u64,
    /// The batch, or the declarations, as they were sealed.
    payload: Py<PyBytes>,
    /// The payload's CRC32C, as it was sealed; verified when it was read.
    crc: u32,
    /// Somebody waits for this batch.
    urgent: bool,
}

/// Follows a writer's spool, from the first batch that nobody acknowledged on. What is missing of
/// those is damage.
///
/// Reads only, but for `acknowledge`. Thread-safe; calls block on the disk with the GIL released.
///
/// Args:
///     writer_folder: Folder of the writer.
///     from_oldest: Begin with the oldest batch there is, though it was acknowledged: whoever did
///         that may have been another store.
///
/// Raises:
///     RuntimeError: If the folder cannot be read, or a newer metrana wrote it.
#[pyclass(frozen, module = "metrana._native")]
pub struct SpoolFollower {
    folder: PathBuf,
    state: Mutex<Following>,
}

struct Following {
    reader: NamedSpoolReader,
    first: Seq,
    acknowledged: Seq,
    /// Read, but beyond what the call before last could hold.
    ready: VecDeque<Frame>,
    damage: Vec<Damage>,
}

impl Following {
    fn read(&mut self, max_bytes: usize) -> Result<Vec<Frame>, spool::SpoolError> {
        let mut frames = Vec::new();
        let mut bytes = 0;
        loop {
            let frame = match self.ready.pop_front() {
                Some(frame) => frame,
                None => match self.reader.next_event() {
                    Ok(Some(SpoolEvent::Frame(frame))) => frame,
                    Ok(Some(SpoolEvent::Damage(damage))) => {
                        self.damage.push(damage);
                        continue;
                    }
                    Ok(None) => return Ok(frames),
                    // What was read is not given up for it: the next call meets it again.
                    Err(_) if !frames.is_empty() => return Ok(frames),
                    Err(error) => return Err(error),
                },
            };
            if !frames.is_empty() && bytes + frame.payload.len() > max_bytes {
                self.ready.push_front(frame);
                return Ok(frames);
            }
            bytes += frame.payload.len();
            frames.push(frame);
        }
    }
}

#[pymethods]
impl SpoolFollower {
    #[new]
    #[pyo3(signature = (writer_folder, from_oldest=false))]
    fn new(py: Python<'_>, writer_folder: PathBuf, from_oldest: bool) -> PyResult<Self> {
        let (first, due, reader) = py.detach(|| {
            let due = Watermark::read(&writer_folder)
                .and_then(|watermark| watermark.first_due(&writer_folder))
                .map_err(|error| runtime_error(&error))?;
            let oldest = if from_oldest { spool::first_seq(&writer_folder) } else { Ok(Seq(0)) };
            let first = match oldest.map_err(|error| runtime_error(&error))? {
                Seq(0) => due,
                oldest => due.min(oldest),
            };
            let reader = NamedSpoolReader::open(&writer_folder, first)
                .map_err(|error| runtime_error(&error))?;
            Ok::<_, PyErr>((first, due, reader))
        })?;
        let state = Following {
            reader,
            first,
            acknowledged: Seq(due.0 - 1),
            ready: VecDeque::new(),
            damage: Vec::new(),
        };
        Ok(Self { folder: writer_folder, state: Mutex::new(state) })
    }

    /// The batch that it began with: what lies before was acknowledged and is gone, or not wanted.
    #[getter]
    fn first_seq(&self, py: Python<'_>) -> u64 {
        py.detach(|| self.state.lock().first.0)
    }

    /// The last batch that was acknowledged, or deleted as such; 0: none.
    #[getter]
    fn acknowledged(&self, py: Python<'_>) -> u64 {
        py.detach(|| self.state.lock().acknowledged.0)
    }

    /// Read the next frames; declarations come before the first batch that uses them.
    ///
    /// Args:
    ///     max_bytes: Most bytes of payloads; one frame is always read.
    ///
    /// Returns:
    ///     The frames in order; an empty list if there is nothing more for now.
    ///
    /// Raises:
    ///     RuntimeError: If a file cannot be read (a later call goes on at the same place), or a
    ///         newer metrana wrote what comes next.
    fn read(&self, py: Python<'_>, max_bytes: usize) -> PyResult<Vec<SpoolMessage>> {
        let frames = py.detach(|| self.state.lock().read(max_bytes));
        let frames = frames.map_err(|error| runtime_error(&error))?;
        let message = |frame: Frame| SpoolMessage {
            kind: frame.kind.batch().map_or("declarations", BatchKind::name),
            seq: frame.seq.0,
            payload: PyBytes::new(py, &frame.payload).unbind(),
            crc: frame.payload_crc32c,
            urgent: frame.urgent,
        };
        Ok(frames.into_iter().map(message).collect())
    }

    /// Tell the writer that everything up to a batch is durable, so that it can free segments.
    ///
    /// Raises:
    ///     RuntimeError: If that cannot be written.
    fn acknowledge(&self, py: Python<'_>, seq: u64) -> PyResult<()> {
        py.detach(|| {
            let mut state = self.state.lock();
            if seq > state.acknowledged.0 {
                run_folder::write_acked(&self.folder, Seq(seq))?;
                state.acknowledged = Seq(seq);
            }
            Ok(())
        })
        .map_err(|error: RunFolderError| runtime_error(&error))
    }

    /// The batches met so far that will never come, as `(first_seq, last_seq, message)`.
    fn damage(&self, py: Python<'_>) -> Vec<(u64, u64, String)> {
        py.detach(|| {
            let state = self.state.lock();
            let lost = |damage: &Damage| {
                damage.lost.map(|(first, last)| (first.0, last.0, damage.message.clone()))
            };
            state.damage.iter().filter_map(lost).collect()
        })
    }

    /// Sentences on all damage met so far, that which cost no batch too.
    fn problems(&self, py: Python<'_>) -> Vec<String> {
        py.detach(|| self.state.lock().damage.iter().map(|damage| damage.message.clone()).collect())
    }

    /// The writer is dead or closed: what is torn now stays torn, so it counts as damage.
    fn writer_has_ended(&self, py: Python<'_>) {
        py.detach(|| self.state.lock().reader.writer_has_ended());
    }
}

/// The rings in this machine's memory whose writers are dead and whose folders are gone, as dicts
/// `path, writer_id, folder, bytes, unsealed_bytes`. Blocks on the disk.
///
/// Raises:
///     OSError: If the memory's folder cannot be listed.
#[pyfunction]
pub fn orphaned_rings(py: Python<'_>) -> PyResult<Vec<Bound<'_, PyDict>>> {
    let rings = py.detach(run_folder::orphaned_rings)?;
    let dict = |ring: DeadRing| {
        let dict = PyDict::new(py);
        dict.set_item("path", ring.path.into_os_string())?;
        dict.set_item("writer_id", ring.writer_id.to_string())?;
        dict.set_item("folder", ring.folder.map(PathBuf::into_os_string))?;
        dict.set_item("bytes", ring.bytes)?;
        dict.set_item("unsealed_bytes", ring.unsealed_bytes)?;
        Ok(dict)
    };
    rings.into_iter().map(dict).collect()
}

/// A writer found in a run's folder.
#[pyclass(frozen, get_all, module = "metrana._native")]
pub struct WriterInfo {
    /// Its place in the run, from 1.
    number: u32,
    /// Its folder; of any bytes, which Python has in a string too.
    path: OsString,
    /// 32 hexadecimal digits; None if `writer.json` is missing or cannot be read.
    writer_id: Option<String>,
    /// `live`, `dead` or `foreign` (another machine's, of which nothing can be known).
    state: &'static str,
    /// Who sends its batches while it lives: `none`, `grpc`, or None if that is unknown.
    sender: Option<&'static str>,
    /// What `writer.json` says, its options among the other keys; empty if it cannot be read.
    info: Py<PyDict>,
    /// Whether spool or ring hold anything that nobody acknowledged.
    undelivered: bool,
    /// Bytes in its ring that are in no spool yet; None if that cannot be told from here.
    ring_bytes: Option<u64>,
    /// Why `info` is empty or `undelivered` a guess; None: neither is the case.
    problem: Option<String>,
    /// Why the folder stays where it is though all in it is delivered, so that nobody may deliver it
    /// again; None: it does not.
    kept: Option<String>,
}

/// The folder of a run in a data directory.
///
/// Args:
///     path: The folder.
///
/// Raises:
///     RuntimeError: If its `run.json` is missing or cannot be read.
#[pyclass(frozen, module = "metrana._native")]
pub struct RunFolder {
    folder: run_folder::RunFolder,
}

#[pymethods]
impl RunFolder {
    #[new]
    fn new(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let folder = py.detach(|| run_folder::RunFolder::open(&path));
        Ok(Self { folder: folder.map_err(|error| runtime_error(&error))? })
    }

    /// Where it is.
    #[getter]
    fn path(&self) -> OsString {
        self.folder.path().as_os_str().to_owned()
    }

    /// What `run.json` says.
    #[getter]
    fn run<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        as_dict(py, &serde_json::to_string(self.folder.run()))
    }

    /// The writers in the folder, by number. Blocks on the disk.
    ///
    /// Raises:
    ///     RuntimeError: If the folder cannot be read.
    fn writers(&self, py: Python<'_>) -> PyResult<Vec<WriterInfo>> {
        let entries = py.detach(|| self.folder.writers());
        let entries = entries.map_err(|error| runtime_error(&error))?;
        entries.into_iter().map(|entry| writer_info(py, entry)).collect()
    }

    /// Take over a dead writer: a context manager that holds its lock, in which its ring is sealed.
    ///
    /// Args:
    ///     number: The writer's place in the run.
    ///     force: Take over another machine's writer too, of which nothing is known.
    #[pyo3(signature = (number, force=false))]
    fn recover(&self, number: u32, force: bool) -> Recovery {
        let path = self.writer_path(number);
        Recovery { path, force, lock: Mutex::new(None), report: Mutex::new(None) }
    }

    /// Mark the folder of a dead writer of which everything is delivered that it has, so that nobody
    /// delivers it again or deletes it. Call it with the writer's lock held. Blocks on the disk.
    ///
    /// Args:
    ///     number: The writer's place in the run.
    ///     first: The first batch that is missing.
    ///     last: The last one; the spool begins behind it.
    ///
    /// Raises:
    ///     RuntimeError: If it cannot be written.
    fn keep(&self, py: Python<'_>, number: u32, first: u64, last: u64) -> PyResult<()> {
        let path = self.writer_path(number);
        py.detach(|| run_folder::keep(&path, Seq(first), Seq(last)))
            .map_err(|error| runtime_error(&error))
    }

    /// Give the sentence that a writer's `kept` is when its folder is marked with `keep`.
    fn missing(&self, number: u32, first: u64, last: u64) -> String {
        run_folder::missing_batches(&self.writer_path(number), Seq(first), Seq(last))
    }

    /// The same of a folder that cannot be marked yet: there may be more to come.
    #[staticmethod]
    fn missing_so_far(first: u64, last: u64) -> String {
        run_folder::missing_so_far(Seq(first), Seq(last))
    }

    /// Delete the folder of a dead writer of which everything is delivered.
    ///
    /// Does nothing if somebody else is at it, it is gone, or it is marked with `keep`.
    ///
    /// Raises:
    ///     RuntimeError: If it cannot be deleted.
    fn remove_delivered(&self, py: Python<'_>, number: u32) -> PyResult<()> {
        let path = self.writer_path(number);
        py.detach(|| {
            if !path.exists() {
                return Ok(());
            }
            match WriterLock::take(&path, true) {
                Ok(lock) => lock.remove_delivered(),
                Err(RunFolderError::WriterLives(_)) => Ok(()),
                Err(error) => Err(error),
            }
        })
        .map_err(|error| runtime_error(&error))
    }
}

impl RunFolder {
    fn writer_path(&self, number: u32) -> PathBuf {
        self.folder.path().join(format!("{number:06}"))
    }
}

fn writer_info(py: Python<'_>, entry: run_folder::WriterEntry) -> PyResult<WriterInfo> {
    let ring_bytes =
        py.detach(|| entry.info.as_ref().and_then(|info| info.ring_bytes(entry.liveness)));
    let info = match &entry.info {
        Some(info) => as_dict(py, &serde_json::to_string(info))?,
        None => PyDict::new(py),
    };
    if let Some(options) = info.get_item("options")? {
        info.del_item("options")?;
        info.update(options.cast()?)?;
    }
    Ok(WriterInfo {
        number: entry.number,
        path: entry.path.into_os_string(),
        writer_id: entry.info.as_ref().map(|info| info.writer_id.to_string()),
        state: match entry.liveness {
            Liveness::Live => "live",
            Liveness::Dead => "dead",
            Liveness::Foreign => "foreign",
        },
        sender: entry.info.as_ref().map(|info| match info.sender {
            SenderKind::None => "none",
            SenderKind::Grpc => "grpc",
        }),
        info: info.unbind(),
        undelivered: entry.is_undelivered,
        ring_bytes,
        problem: entry.problem,
        kept: entry.kept,
    })
}

fn as_dict<'py>(
    py: Python<'py>,
    json: &Result<String, serde_json::Error>,
) -> PyResult<Bound<'py, PyDict>> {
    let json = json.as_ref().map_err(|error| PyValueError::new_err(error.to_string()))?;
    Ok(py.import("json")?.call_method1("loads", (json,))?.cast_into()?)
}

/// A dead writer that is being taken over: a context manager that holds its lock.
#[pyclass(frozen, module = "metrana._native")]
pub struct Recovery {
    path: PathBuf,
    force: bool,
    lock: Mutex<Option<WriterLock>>,
    report: Mutex<Option<RecoveryReport>>,
}

#[pymethods]
impl Recovery {
    /// Take the lock, cut the torn tail, seal the ring's rest. Blocks on the disk.
    ///
    /// Raises:
    ///     BlockingIOError: If the writer lives, somebody else has the lock, or the folder is marked
    ///         with `keep`.
    ///     RuntimeError: If it cannot be recovered.
    fn __enter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        let this = slf.get();
        slf.py().detach(|| this.take())?;
        Ok(slf)
    }

    /// Let go of the lock.
    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, _exception: &Bound<'_, PyAny>) {
        self.lock.lock().take();
    }

    /// What was found: `ring` (`ended`, `sealed`, `lost` or `out_of_reach`), `up_to_bytes` of
    /// points that may be lost or out of reach, `torn_bytes`, `first_seq`, `last_seq`,
    /// `is_complete` (the spool holds all there will ever be), `problems`. None before it was entered.
    #[getter]
    fn report<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        let report = self.report.lock().clone();
        let Some(report) = report else { return Ok(None) };
        let (ring, up_to_bytes) = match report.ring {
            RingOutcome::Ended => ("ended", 0),
            RingOutcome::Sealed { .. } => ("sealed", 0),
            RingOutcome::Lost { up_to_bytes } => ("lost", up_to_bytes),
            RingOutcome::OutOfReach { up_to_bytes } => ("out_of_reach", up_to_bytes),
        };
        let dict = PyDict::new(py);
        dict.set_item("ring", ring)?;
        dict.set_item("up_to_bytes", up_to_bytes)?;
        dict.set_item("torn_bytes", report.torn_bytes)?;
        dict.set_item("first_seq", report.first_seq.0)?;
        dict.set_item("last_seq", report.last_seq.0)?;
        dict.set_item("is_complete", report.is_complete())?;
        dict.set_item("problems", report.problems)?;
        Ok(Some(dict))
    }
}

impl Recovery {
    fn take(&self) -> PyResult<()> {
        let mut lock = WriterLock::take(&self.path, self.force).map_err(|error| match error {
            // Nothing is wrong with it: whoever asks comes again.
            RunFolderError::WriterLives(_) => PyBlockingIOError::new_err(error.to_string()),
            error => runtime_error(&error),
        })?;
        if let Some(why) = lock.kept() {
            // It is since it was listed, or whoever asks would know.
            return Err(PyBlockingIOError::new_err(why));
        }
        let report =
            recover(&mut lock, &recovery_options()).map_err(|error| runtime_error(&error))?;
        *self.report.lock() = Some(report);
        *self.lock.lock() = Some(lock);
        Ok(())
    }
}

/// How the rest of a dead writer's ring is sealed.
pub fn recovery_options() -> RecoveryOptions {
    RecoveryOptions {
        spool: SpoolOptions::default(),
        seal: SealSettings {
            compression: Compression::default(),
            payload_bytes: RECOVERED_PAYLOAD_BYTES,
        },
    }
}

/// Whether a folder is on a file system that machines share, or that cannot be told.
#[pyfunction]
pub fn is_network_file_system(py: Python<'_>, path: PathBuf) -> bool {
    py.detach(|| existing(&path).map(platform::filesystem))
        .is_none_or(|kind| kind.is_ok_and(|kind| kind == Filesystem::Network))
}

/// The path itself, or the nearest folder above it that exists.
fn existing(path: &Path) -> Option<&Path> {
    path.ancestors().find(|path| path.exists())
}
