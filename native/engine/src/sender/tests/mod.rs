//! The sender against the in-memory server. Most run in simulated time: half an hour of a stream's
//! life passes in a millisecond, in the same order every time.

mod faults;
mod life;
mod threads;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::sync::Mutex;
use tokio::task::JoinHandle;

use super::session::Ending;
use super::shared::{CloseReport, Shared};
use super::supervisor::Supervisor;
use super::*;
use crate::transport::memory::{MemoryServer, MemoryTransport};
use crate::transport::{Batch, NameConflict, ResumeStrategy, WriterIdentity};
use crate::types::BatchKind;

const RUN: RunId = RunId([1; 16]);
const WRITER: WriterId = WriterId([2; 16]);

/// A spool in memory. Before the batches come declarations, as in a segment.
#[derive(Clone, Default)]
struct TestSpool(Arc<Mutex<Vec<SpoolItem>>>);

impl TestSpool {
    fn batches(seqs: impl IntoIterator<Item = u64>) -> Self {
        let spool = Self::default();
        spool.push(declarations());
        seqs.into_iter().for_each(|seq| spool.push(batch(seq)));
        spool
    }

    fn push(&self, item: SpoolItem) {
        self.0.lock().push(item);
    }
}

impl Spool for TestSpool {
    fn open(&self, first: Seq) -> io::Result<Box<dyn FrameSource>> {
        Ok(Box::new(TestFrames { spool: self.clone(), first, next: 0 }))
    }
}

struct TestFrames {
    spool: TestSpool,
    first: Seq,
    next: usize,
}

impl FrameSource for TestFrames {
    fn next(&mut self) -> io::Result<Option<SpoolItem>> {
        while let Some(item) = self.spool.0.lock().get(self.next) {
            self.next += 1;
            match item {
                SpoolItem::Batch(batch) if batch.seq < self.first => {}
                SpoolItem::Lost { last, .. } if *last < self.first => {}
                item => return Ok(Some(item.clone())),
            }
        }
        Ok(None)
    }
}

fn batch(seq: u64) -> SpoolItem {
    let payload = format!("batch {seq}").into_bytes();
    let payload_crc32c = crc32c::crc32c(&payload);
    let kind = if seq.is_multiple_of(3) { BatchKind::Attributes } else { BatchKind::Points };
    SpoolItem::Batch(Batch { seq: Seq(seq), kind, payload, payload_crc32c, urgent: false })
}

fn declarations() -> SpoolItem {
    let payload = b"declarations".to_vec();
    let payload_crc32c = crc32c::crc32c(&payload);
    SpoolItem::Declarations { payload, payload_crc32c }
}

/// Writes down what it hears.
#[derive(Default)]
struct TestHost {
    acked: Mutex<Vec<Seq>>,
    problems: Mutex<Vec<SenderProblem>>,
    opened: Mutex<usize>,
}

impl SenderHost for TestHost {
    fn on_acked(&self, seq: Seq) {
        self.acked.lock().push(seq);
    }

    fn on_problem(&self, problem: SenderProblem) {
        self.problems.lock().push(problem);
    }

    fn on_opened(&self, _opened: &OpenedRun) {
        *self.opened.lock() += 1;
    }

    fn heartbeat(&self) -> Heartbeat {
        Heartbeat { points_added: 42, ..Heartbeat::default() }
    }
}

impl TestHost {
    fn last_acked(&self) -> Seq {
        self.acked.lock().last().copied().unwrap_or_default()
    }
}

/// A sender's parts, to be changed before it starts.
struct Rig {
    server: Arc<MemoryServer>,
    spool: TestSpool,
    host: Arc<TestHost>,
    shared: Arc<Shared>,
    settings: SenderSettings,
    open: Option<OpenRun>,
    ending: Ending,
}

impl Rig {
    /// `count` batches lie in the spool.
    fn new(server: Arc<MemoryServer>, count: u64) -> Self {
        Self {
            server,
            spool: TestSpool::batches(1..=count),
            host: Arc::default(),
            shared: Shared::new(Seq(count)),
            settings: SenderSettings::default(),
            open: None,
            ending: Ending::Closed,
        }
    }

    fn config(&self) -> SenderConfig {
        SenderConfig {
            connector: Arc::new(MemoryTransport(Arc::clone(&self.server))),
            spool: Box::new(self.spool.clone()),
            host: Arc::clone(&self.host) as Arc<dyn SenderHost>,
            run_id: RUN,
            writer_id: WRITER,
            first_seq: Seq(1),
            oldest_seq: None,
            open: self.open.clone(),
            log: Arc::new(EngineLog::off()),
            settings: self.settings.clone(),
            background: None,
        }
    }

    fn start(&self) -> JoinHandle<CloseReport> {
        let supervisor = Supervisor::new(self.config(), Arc::clone(&self.shared), self.ending);
        tokio::spawn(supervisor.run())
    }

    /// Closes and waits for the end, which must come of itself.
    async fn finish(&self, sender: JoinHandle<CloseReport>) -> CloseReport {
        self.shared.close();
        let report = tokio::time::timeout(Duration::from_secs(24 * 3600), sender).await;
        report.expect("the sender ends").expect("the sender does not panic")
    }

    /// Starts, closes, and checks that all of `count` batches arrived and were applied once.
    async fn deliver(&self, count: u64) {
        let sender = self.start();
        let report = self.finish(sender).await;
        assert_eq!(report, CloseReport { ended: true, acked: Seq(count), error: None });
        self.assert_delivered(count);
    }

    fn assert_delivered(&self, count: u64) {
        let all: Vec<_> = (1..=count).map(Seq).collect();
        assert_eq!(self.server.applied(WRITER), all);
        assert_eq!(self.host.last_acked(), Seq(count));
        let acked = self.host.acked.lock();
        assert!(acked.is_sorted_by(|one, next| one < next), "acks only rise: {acked:?}");
        let records = self.server.records();
        for batch in records.writers[&WRITER].batches.values() {
            assert_eq!(batch.payload, format!("batch {}", batch.seq).as_bytes());
        }
        let end = records.writers[&WRITER].end.expect("the writer was ended");
        assert_eq!(end.last_seq, Seq(count));
    }
}

fn open_run() -> OpenRun {
    OpenRun {
        run_id: RUN,
        workspace_name: "default".to_owned(),
        project_name: "default".to_owned(),
        run_name: "run".to_owned(),
        experiment_name: String::new(),
        orchestration_id: "job".to_owned(),
        resume_strategy: ResumeStrategy::Never,
        name_conflict: NameConflict::Rename,
        create_project_if_missing: true,
        by_run_id: false,
        created_at_ms: 1_790_000_000_000,
        writer: WriterIdentity {
            writer_id: WRITER,
            number: 1,
            logger_id: String::new(),
            host: "host".to_owned(),
            pid: 1,
            client_version: "0".to_owned(),
            opened_at_ms: 1_790_000_000_000,
            dead: false,
        },
        earlier_writers: Vec::new(),
        want_cursors: false,
    }
}
