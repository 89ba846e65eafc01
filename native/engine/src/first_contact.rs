//! The first word with the server: a run is opened there before its first point, if that can be had
//! in time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock::now_ms;
use crate::config::{Connect, EngineConfig, ResumeStrategy, ServerConfig};
use crate::engine::{InterruptCheck, LOOK_INTERVAL};
use crate::engine_log::EngineLog;
use crate::error::{OpenError, RefusalReason};
use crate::opening::io_error;
use crate::platform;
use crate::sender::PendingOpen;
use crate::transport::{
    self, NameConflict, OpenRun, OpenedRun, Refusal, RefusalCode, TransportError, WriterIdentity,
};
use crate::types::{RunId, WriterId};

/// `None`: there is no server yet, and the run goes on without.
pub(crate) fn wait_for_server(
    server: &ServerConfig,
    request: &OpenRun,
    log: &Arc<EngineLog>,
    check_interrupt: InterruptCheck<'_>,
) -> Result<Option<OpenedRun>, OpenError> {
    let (wait, is_required) = match server.connect {
        Connect::Within(wait) => (wait, false),
        Connect::Required(wait) => (wait, true),
    };
    let begun = Instant::now();
    let (connector, log) = (Arc::clone(&server.connector), Arc::clone(log));
    let pending = PendingOpen::start(connector, request.clone(), &server.settings, log)
        .map_err(|error| io_error("asking the server", std::io::Error::other(error)))?;
    loop {
        let left = wait.saturating_sub(begun.elapsed());
        match pending.wait(left.min(LOOK_INTERVAL)) {
            Some(Ok(opened)) => return Ok(Some(opened)),
            Some(Err(TransportError::Refused(refusal))) => return Err(refused(refusal)),
            Some(Err(TransportError::Unreachable(problem))) if is_required => {
                return Err(not_connected(server, wait, problem));
            }
            None if left > Duration::ZERO => {}
            None if is_required => {
                let problem = pending
                    .last_error()
                    .map_or_else(|| "no answer".to_owned(), |error| error.to_string());
                return Err(not_connected(server, wait, problem));
            }
            Some(Err(TransportError::Unreachable(_))) | None => return Ok(None),
        }
        if check_interrupt() {
            return Err(OpenError::Interrupted);
        }
    }
}

/// The names of a run that this data directory does not know: only its server can. `None`: there is
/// none, or it does not answer.
pub(crate) fn ask_for_run(
    config: &EngineConfig,
    writer_id: WriterId,
    run_id: RunId,
    check_interrupt: InterruptCheck<'_>,
) -> Result<Option<OpenedRun>, OpenError> {
    let Some(server) = &config.server else { return Ok(None) };
    let run = &config.run;
    let request = OpenRun {
        run_id,
        workspace_name: run.workspace_name.clone(),
        project_name: run.project_name.clone(),
        run_name: String::new(),
        experiment_name: run.experiment_name.clone(),
        orchestration_id: run.orchestration_id.clone(),
        resume_strategy: resume_strategy(run.resumes()),
        name_conflict: NameConflict::Refuse,
        create_project_if_missing: false,
        by_run_id: true,
        created_at_ms: now_ms(),
        // The run's folder is new here, and so its first writer.
        writer: WriterIdentity {
            writer_id,
            number: 1,
            logger_id: run.logger_id.clone(),
            host: platform::host_name(),
            pid: std::process::id(),
            client_version: run.client_version.clone(),
            opened_at_ms: now_ms(),
            dead: false,
        },
        earlier_writers: Vec::new(),
        want_cursors: false,
    };
    wait_for_server(server, &request, &Arc::new(EngineLog::off()), check_interrupt)
}

pub(crate) fn resume_strategy(resume: ResumeStrategy) -> transport::ResumeStrategy {
    match resume {
        ResumeStrategy::Never => transport::ResumeStrategy::Never,
        ResumeStrategy::Allow => transport::ResumeStrategy::Allow,
    }
}

fn not_connected(server: &ServerConfig, waited: Duration, problem: String) -> OpenError {
    OpenError::NotConnected { url: server.connector.describe(), waited, problem }
}

fn refused(refusal: Refusal) -> OpenError {
    let reason = match refusal.code {
        RefusalCode::Version => RefusalReason::Version,
        RefusalCode::Unauthenticated => RefusalReason::Unauthenticated,
        RefusalCode::RunExists => RefusalReason::RunExists,
        RefusalCode::OrchestrationMismatch => RefusalReason::OrchestrationMismatch,
        RefusalCode::RunNotFound => RefusalReason::RunNotFound,
        RefusalCode::RunDeleted => RefusalReason::RunDeleted,
        RefusalCode::ProjectNotFound => RefusalReason::ProjectNotFound,
        _ => RefusalReason::Other,
    };
    OpenError::Refused { reason, message: refusal.message }
}
