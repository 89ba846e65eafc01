//! Opening a writer: the run's folder, a writer number, lock, ring and `writer.json`; then the
//! server, if there is one; then the threads.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread;

use crate::sync::Mutex;

use crate::chunk::QueueLimits;
use crate::clock::now_ms;
use crate::config::{EngineConfig, MESSAGE_OVERHEAD_BYTES, ResumeStrategy, ServerConfig};
use crate::deliver::{DeadWriters, DeliveryEvent, DeliveryOptions};
use crate::drain::{Drain, DrainParts, DrainSettings, OwnFolder};
use crate::engine::{Engine, Identity, InterruptCheck, Parts};
use crate::engine_log::EngineLog;
use crate::error::{InvalidArgument, OpenError};
use crate::first_contact::{ask_for_run, resume_strategy, wait_for_server};
use crate::intake::Intake;
use crate::platform;
use crate::ring::{Consumer, Producer, Ring, RingKind, RingStart};
use crate::run_folder::{
    Claim, INFO_VERSION, Liveness, RunFolder, RunFolderError, RunInfo, RunNames, RunRequest,
    SenderKind, WriterFolder, WriterInfo, WriterOptions,
};
use crate::seal::Sealer;
use crate::sender::{BackgroundJob, Sender, SenderConfig, SenderHost};
use crate::shared::Shared;
use crate::spool::SpoolWriter;
use crate::spool_source::{SpoolPlace, SpoolSource};
use crate::takeover::{Found, recover_dead, recovery_options, seal_settings};
use crate::transport::{NameConflict, OpenRun, WriterIdentity};
use crate::types::{Seq, WriterId};

impl Engine {
    /// Claims the run's folder, a writer number, lock and ring; starts the threads; with a server,
    /// waits for it as `config.server.connect` says. Blocks.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; nothing is left behind then.
    pub fn open(
        config: EngineConfig,
        check_interrupt: InterruptCheck<'_>,
    ) -> Result<Self, OpenError> {
        config.validate()?;
        let writer_id = WriterId(
            platform::random_bytes().map_err(|source| io_error("naming the writer", source))?,
        );
        let (run_folder, claim) = claim_run(&config, writer_id, check_interrupt)?;
        let found = match claim {
            Claim::Created => Found::default(),
            Claim::Joined | Claim::Resumed => recover_dead(&config, &run_folder, claim),
        };
        let claimed = Claimed::take(config, writer_id, run_folder.clone(), claim);
        let result = claimed.and_then(|claimed| {
            claimed.take_over(found);
            claimed.connect(check_interrupt)
        });
        if result.is_err() && claim == Claim::Created {
            // Left alone if others write to it by now.
            let _ = run_folder.withdraw();
        }
        result
    }
}

fn claim_run(
    config: &EngineConfig,
    writer_id: WriterId,
    check_interrupt: InterruptCheck<'_>,
) -> Result<(RunFolder, Claim), OpenError> {
    let run = &config.run;
    let (found, opened);
    let names = match (&run.run_name, run.run_id) {
        (Some(run_name), _) => RunNames {
            destination: &run.destination,
            workspace_name: &run.workspace_name,
            project_name: &run.project_name,
            run_name,
        },
        (None, Some(run_id)) => {
            let folder = RunFolder::find(&config.data_dir, run_id).map_err(folder_error)?;
            if let Some(folder) = folder {
                found = folder;
                let RunInfo { destination, workspace_name, project_name, run_name, .. } =
                    found.run();
                RunNames { destination, workspace_name, project_name, run_name }
            } else {
                let unknown = || OpenError::RunNotFound(run_id.to_string());
                opened =
                    ask_for_run(config, writer_id, run_id, check_interrupt)?.ok_or_else(unknown)?;
                RunNames {
                    destination: &run.destination,
                    workspace_name: &opened.workspace_name,
                    project_name: &opened.project_name,
                    run_name: &opened.run_name,
                }
            }
        }
        (None, None) => {
            return Err(InvalidArgument::new("run_name", "missing").into());
        }
    };
    let request = RunRequest {
        names,
        experiment_name: &run.experiment_name,
        orchestration_id: &run.orchestration_id,
        resume: run.resumes(),
        run_id: run.run_id,
    };
    RunFolder::claim(&config.data_dir, &request).map_err(folder_error)
}

/// A writer that is claimed on disk and has no threads yet.
struct Claimed {
    config: EngineConfig,
    run_folder: RunFolder,
    claim: Claim,
    writer_id: WriterId,
    info: WriterInfo,
    shared: Arc<Shared>,
    /// Taken by the drain thread.
    consumer: Option<Consumer>,
}

impl Claimed {
    fn take(
        config: EngineConfig,
        writer_id: WriterId,
        run_folder: RunFolder,
        claim: Claim,
    ) -> Result<Self, OpenError> {
        let folder = run_folder.claim_writer().map_err(folder_error)?;
        let (info, (ring, producer, consumer)) =
            match make_ring(&config, run_folder.run(), &folder, writer_id) {
                Ok(made) => made,
                Err(error) => {
                    let _ = folder.withdraw();
                    return Err(error);
                }
            };
        let secret = config.server.as_ref().and_then(|server| server.connector.secret());
        let log = EngineLog::open(folder.path(), config.log_level, secret);
        log_beginning(&log, &config, run_folder.run(), &info, &ring);
        let memory_reason = match ring.kind() {
            RingKind::Memory { reason } => Some(reason.clone()),
            RingKind::Tmpfs { .. } => None,
        };
        let shared = Arc::new(share(&config, producer, ring, folder, log));
        if let Some(reason) = memory_reason {
            shared.note(format!("points not yet in the spool die with the process: {reason}"));
        }
        let claimed =
            Self { config, run_folder, claim, writer_id, info, shared, consumer: Some(consumer) };
        claimed.seed();
        Ok(claimed)
    }

    /// From what earlier writers of the folder left. The server's cursors come on top.
    fn seed(&self) {
        let (cursors, problems) = self.run_folder.cursors();
        self.shared.intake.lock().seed(&cursors);
        for problem in problems {
            self.shared.note(format!("steps may start anew: {problem}"));
        }
    }

    fn take_over(&self, found: Found) {
        self.shared.intake.lock().seed(&found.cursors);
        for (number, ring) in found.recovered {
            self.shared.log.info(format_args!("recovered writer {number}, its ring: {ring:?}"));
        }
        for problem in found.problems {
            self.shared.note(problem);
        }
    }

    fn connect(self, check_interrupt: InterruptCheck<'_>) -> Result<Engine, OpenError> {
        let Some(server) = self.config.server.clone() else { return self.start(None) };
        let request = self.open_request();
        match wait_for_server(&server, &request, &self.shared.log, check_interrupt) {
            Ok(Some(opened)) => {
                self.shared.on_opened(&opened);
                self.start(Some((server, None)))
            }
            Ok(None) => {
                self.shared.log.warn(format_args!("no server yet: logging to the spool"));
                self.start(Some((server, Some(request))))
            }
            Err(error) => {
                self.withdraw();
                Err(error)
            }
        }
    }

    fn withdraw(self) {
        let _ = self.shared.ring.lock().unlink();
        if let Some(folder) = self.shared.folder.lock().take() {
            let _ = folder.withdraw();
        }
    }

    fn open_request(&self) -> OpenRun {
        let (run, wanted) = (self.run_folder.run(), &self.config.run);
        // Whom we cannot list is delivered in whatever order comes about.
        let earlier_writers =
            self.run_folder.undelivered_before(self.info.number).unwrap_or_default();
        OpenRun {
            run_id: run.run_id,
            workspace_name: run.workspace_name.clone(),
            project_name: run.project_name.clone(),
            run_name: run.run_name.clone(),
            experiment_name: wanted.experiment_name.clone(),
            orchestration_id: wanted.orchestration_id.clone(),
            resume_strategy: resume_strategy(wanted.resumes()),
            name_conflict: NameConflict::Refuse,
            create_project_if_missing: wanted.create_project_if_missing,
            by_run_id: wanted.run_name.is_none(),
            created_at_ms: run.created_at_ms,
            writer: WriterIdentity::of(&self.info, Liveness::Live),
            earlier_writers,
            want_cursors: true,
        }
    }

    fn start(
        mut self,
        server: Option<(ServerConfig, Option<OpenRun>)>,
    ) -> Result<Engine, OpenError> {
        let place = match &*self.shared.folder.lock() {
            Some(folder) => folder.place().clone(),
            None => return Err(OpenError::Interrupted),
        };
        let spool_place = SpoolPlace::new(place.path());
        let sender = match server {
            None => None,
            Some((server, open)) => match self.start_sender(&server, open, spool_place.clone()) {
                Ok(sender) => Some(Arc::new(sender)),
                Err(error) => {
                    self.withdraw();
                    return Err(error);
                }
            },
        };
        let Some(consumer) = self.consumer.take() else { return Err(OpenError::Interrupted) };
        let drain = self.drain(consumer, sender.clone(), OwnFolder::new(place, spool_place));
        let shared = Arc::clone(&self.shared);
        let started = platform::without_signals(|| {
            thread::Builder::new().name("metrana-drain".to_owned()).spawn(move || drain.run())
        });
        let handle = match started {
            Ok(handle) => handle,
            Err(source) => {
                self.withdraw();
                return Err(io_error("starting a thread", source));
            }
        };
        let identity = self.identity();
        Ok(Engine::new(Parts {
            shared,
            config: self.config,
            identity,
            sender,
            drain: Mutex::new(Some(handle)),
        }))
    }

    fn start_sender(
        &self,
        server: &ServerConfig,
        open: Option<OpenRun>,
        spool_place: SpoolPlace,
    ) -> Result<Sender, OpenError> {
        let config = SenderConfig {
            connector: Arc::clone(&server.connector),
            spool: Box::new(SpoolSource::of_living(self.writer_id, spool_place)),
            host: Arc::clone(&self.shared) as Arc<dyn SenderHost>,
            run_id: self.run_folder.run().run_id,
            writer_id: self.writer_id,
            first_seq: Seq(1),
            oldest_seq: None,
            open,
            settings: server.settings.clone(),
            log: Arc::clone(&self.shared.log),
            background: Some(self.dead_writers(server)),
        };
        Sender::start(config, Seq(0))
            .map_err(|error| io_error("starting the sender", std::io::Error::other(error)))
    }

    /// What earlier processes left for the same destination is delivered beside this one's.
    fn dead_writers(&self, server: &ServerConfig) -> BackgroundJob {
        let destination = &self.run_folder.run().destination;
        let dead = DeadWriters {
            data_dir: self.config.data_dir.clone(),
            of_destination: Some(destination.clone()),
            options: DeliveryOptions::new(Arc::clone(&server.connector), destination),
            recovery: recovery_options(&self.config),
            force: false,
        };
        let shared = Arc::clone(&self.shared);
        dead.in_background(Arc::new(move |event| {
            if let DeliveryEvent::Delivered { run, number, delivered } = &event {
                let (name, last) = (&run.run().run_name, delivered.last_seq);
                let text = format_args!("delivered writer {number} of run {name:?}, batch {last}");
                shared.log.info(text);
            }
            // Whoever kept it has told, and every process after it would tell again.
            if !matches!(event, DeliveryEvent::Kept { .. }) {
                event.problems().into_iter().for_each(|problem| shared.report(problem));
            }
        }))
    }

    fn drain(&self, consumer: Consumer, sender: Option<Arc<Sender>>, folder: OwnFolder) -> Drain {
        let config = &self.config;
        let mut options = config.spool.options.clone();
        if let Some(most) = config.spool.max_bytes {
            // Only whole segments are deleted, so several must fit.
            options.segment_bytes = options.segment_bytes.min(most / 4);
        }
        let parts = DrainParts {
            consumer,
            spool: SpoolWriter::create(folder.place.path(), self.writer_id, options),
            sealer: Sealer::new(seal_settings(config)),
            sender,
            folder,
        };
        let settings = DrainSettings {
            writer_id: self.writer_id,
            max_age: config.batch.max_age,
            ring: config.ring.clone(),
            spool_max_bytes: config.spool.max_bytes,
            run: self.run_folder.run().clone(),
            info: self.info.clone(),
        };
        Drain::new(Arc::clone(&self.shared), parts, settings)
    }

    fn identity(&self) -> Identity {
        let run = self.run_folder.run();
        Identity {
            run_id: run.run_id,
            writer_id: self.writer_id,
            writer_number: self.info.number,
            workspace_name: run.workspace_name.clone(),
            project_name: run.project_name.clone(),
            run_name: run.run_name.clone(),
            orchestration_id: self.config.run.orchestration_id.clone(),
            created: self.claim == Claim::Created,
        }
    }
}

fn log_beginning(
    log: &EngineLog,
    config: &EngineConfig,
    run: &RunInfo,
    info: &WriterInfo,
    ring: &Ring,
) {
    let WriterInfo { writer_id, number, client_version, pid, .. } = info;
    let (kind, bytes) = (ring.kind().name(), ring.capacity());
    let server = config.server.as_ref().map(|server| server.connector.describe());
    log.info(format_args!(
        "writer {number} ({writer_id}) of run {:?} ({}), metrana {client_version}, process {pid}",
        run.run_name, run.run_id
    ));
    log.info(format_args!(
        "the ring is in {kind} and has {bytes} bytes; batches go to {}",
        server.as_deref().unwrap_or("the spool alone")
    ));
}

fn share(
    config: &EngineConfig,
    producer: Producer,
    ring: Ring,
    folder: WriterFolder,
    log: EngineLog,
) -> Shared {
    let sealed_points = Arc::new(AtomicU64::new(0));
    let limits = QueueLimits {
        points: config.queue.capacity.unwrap_or(u64::MAX),
        // What is sealed from a record is at most twice its size.
        record_bytes: (config.batch.max_msg_size - MESSAGE_OVERHEAD_BYTES) / 2,
    };
    let intake = Intake::new(producer, limits, Arc::clone(&sealed_points));
    Shared::new(intake, sealed_points, ring, folder, log)
}

/// The ring, and `writer.json`, which says where the ring is before it is there: a process that dies
/// in between leaves no memory behind that nobody knows of.
fn make_ring(
    config: &EngineConfig,
    run: &RunInfo,
    folder: &WriterFolder,
    writer_id: WriterId,
) -> Result<(WriterInfo, (Ring, Producer, Consumer)), OpenError> {
    let planned = Ring::planned_path(&config.ring, writer_id);
    let info = writer_info(config, run, folder, writer_id);
    let ring_device = planned.as_deref().and_then(Path::parent).and_then(device);
    let info = WriterInfo { ring: planned, ring_device, ..info };
    folder.announce(&info).map_err(folder_error)?;
    let made = Ring::create(&config.ring, writer_id, RingStart::ORIGIN)
        .map_err(|error| io_error("making the ring", std::io::Error::other(error)))?;
    made.0.set_folder(folder.path());
    let path = made.0.kind().path().map(Path::to_owned);
    let ring_device = path.as_deref().and_then(device);
    let info = WriterInfo { ring: path, ring_device, ring_capacity: made.0.capacity(), ..info };
    if let Err(error) = folder.write_info(&info) {
        let _ = made.0.unlink();
        return Err(folder_error(error));
    }
    Ok((info, made))
}

fn device(path: &Path) -> Option<u64> {
    platform::device(path).ok().flatten()
}

/// Without its ring.
fn writer_info(
    config: &EngineConfig,
    run: &RunInfo,
    folder: &WriterFolder,
    writer_id: WriterId,
) -> WriterInfo {
    WriterInfo {
        version: INFO_VERSION,
        writer_id,
        run_id: run.run_id,
        number: folder.number(),
        logger_id: config.run.logger_id.clone(),
        host: platform::host_name(),
        pid: std::process::id(),
        machine_id: platform::machine_id(),
        boot_id: platform::boot_id(),
        ring: None,
        ring_capacity: 0,
        ring_device: None,
        sender: if config.server.is_some() { SenderKind::Grpc } else { SenderKind::None },
        client_version: config.run.client_version.clone(),
        opened_at_ms: now_ms(),
        options: WriterOptions {
            experiment_name: config.run.experiment_name.clone(),
            create_project_if_missing: config.run.create_project_if_missing,
            resume_strategy: match config.run.resumes() {
                ResumeStrategy::Never => "never".to_owned(),
                ResumeStrategy::Allow => "allow".to_owned(),
            },
        },
        ended: None,
        last_seq: None,
        acked: None,
    }
}

fn folder_error(error: RunFolderError) -> OpenError {
    match error {
        RunFolderError::OtherJob { run_name, theirs, ours } => {
            OpenError::OrchestrationMismatch { run_name, ours, theirs }
        }
        RunFolderError::OtherRun { wanted, .. } => OpenError::RunNotFound(wanted.to_string()),
        RunFolderError::Io { doing, path, source } => {
            OpenError::Io { action: format!("{doing} {}", path.display()), source }
        }
        error => io_error("claiming the run's folder", std::io::Error::other(error)),
    }
}

pub(crate) fn io_error(action: &str, source: std::io::Error) -> OpenError {
    OpenError::Io { action: action.to_owned(), source }
}
