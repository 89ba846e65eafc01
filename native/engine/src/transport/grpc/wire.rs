//! Between the engine's messages and the protobuf ones. Payloads are moved, never copied.

use super::super::{
    ClientMessage, EnvironmentCursor, Heartbeat, Hello, NameConflict, OpenRun, OpenedRun,
    PROTOCOL_VERSIONS, Refusal, RefusalCode, ResumeStrategy, SeriesCursor, ServerMessage,
    TransportError, WriterEnd, WriterIdentity,
};
use crate::types::{BatchKind, Position, RunId, Scale, Seq};

/// The generated code of `metrana/v1/ingestion.proto`.
#[allow(clippy::pedantic, unused_qualifications, reason = "generated")]
pub(super) mod proto {
    tonic::include_proto!("metrana.v1");
}

// ── To the server ──────────────────────────────────────────────────────────────────────────────

impl From<OpenRun> for proto::OpenRunRequest {
    fn from(request: OpenRun) -> Self {
        Self {
            min_version: *PROTOCOL_VERSIONS.start(),
            max_version: *PROTOCOL_VERSIONS.end(),
            run_id: request.run_id.0.to_vec(),
            workspace_name: request.workspace_name,
            project_name: request.project_name,
            run_name: request.run_name,
            experiment_name: request.experiment_name,
            orchestration_id: request.orchestration_id,
            resume_strategy: match request.resume_strategy {
                ResumeStrategy::Never => proto::ResumeStrategy::Never,
                ResumeStrategy::Allow => proto::ResumeStrategy::Allow,
            }
            .into(),
            name_conflict: match request.name_conflict {
                NameConflict::Refuse => proto::NameConflict::Refuse,
                NameConflict::Rename => proto::NameConflict::Rename,
            }
            .into(),
            create_project_if_missing: request.create_project_if_missing,
            by_run_id: request.by_run_id,
            created_at_ms: request.created_at_ms,
            writer: Some(request.writer.into()),
            earlier_writers: request.earlier_writers.into_iter().map(Into::into).collect(),
            want_cursors: request.want_cursors,
        }
    }
}

impl From<WriterIdentity> for proto::Writer {
    fn from(writer: WriterIdentity) -> Self {
        Self {
            writer_id: writer.writer_id.0.to_vec(),
            number: writer.number,
            logger_id: writer.logger_id,
            host: writer.host,
            pid: writer.pid,
            client_version: writer.client_version,
            opened_at_ms: writer.opened_at_ms,
            dead: writer.dead,
        }
    }
}

impl From<ClientMessage> for proto::ClientMessage {
    fn from(message: ClientMessage) -> Self {
        use proto::client_message::Body;
        let body = match message {
            ClientMessage::Hello(hello) => Body::Hello(hello.into()),
            ClientMessage::Declarations { payload, payload_crc32c } => {
                Body::Declarations(proto::Declarations { payload, payload_crc32c })
            }
            ClientMessage::Batch(batch) => Body::Batch(proto::Batch {
                seq: batch.seq.0,
                kind: match batch.kind {
                    BatchKind::Points => proto::BatchKind::Points,
                    BatchKind::Attributes => proto::BatchKind::Attributes,
                    BatchKind::Renderings => proto::BatchKind::Renderings,
                }
                .into(),
                payload: batch.payload,
                payload_crc32c: batch.payload_crc32c,
                urgent: batch.urgent,
            }),
            ClientMessage::Heartbeat(heartbeat) => Body::Heartbeat(heartbeat.into()),
            ClientMessage::End(WriterEnd { last_seq, died }) => {
                Body::End(proto::WriterEnd { last_seq: last_seq.0, died })
            }
        };
        Self { body: Some(body) }
    }
}

impl From<Hello> for proto::Hello {
    fn from(hello: Hello) -> Self {
        Self {
            min_version: *PROTOCOL_VERSIONS.start(),
            max_version: *PROTOCOL_VERSIONS.end(),
            run_id: hello.run_id.0.to_vec(),
            writer_id: hello.writer_id.0.to_vec(),
            first_seq: hello.first_seq.0,
            lost: hello
                .lost
                .into_iter()
                .map(|(first, last)| proto::SeqRange { first: first.0, last: last.0 })
                .collect(),
        }
    }
}

impl From<Heartbeat> for proto::Heartbeat {
    fn from(heartbeat: Heartbeat) -> Self {
        Self {
            points_added: heartbeat.points_added,
            points_dropped: heartbeat.points_dropped,
            points_pending: heartbeat.points_pending,
            spooled_bytes: heartbeat.spooled_bytes,
        }
    }
}

// ── From the server ────────────────────────────────────────────────────────────────────────────

/// A message of the stream; `None` for a kind that this engine does not know and need not.
pub(super) fn server_message(
    message: proto::ServerMessage,
) -> Result<Option<ServerMessage>, TransportError> {
    use proto::server_message::Body;
    let Some(body) = message.body else { return Ok(None) };
    Ok(Some(match body {
        Body::Welcome(welcome) => {
            check_version(welcome.version)?;
            let stored = welcome.stored_seq.map(Seq);
            ServerMessage::Welcome { server_version: welcome.server_version, stored }
        }
        Body::Ack(ack) => ServerMessage::Ack(Seq(ack.seq)),
        Body::Ended(proto::Ended {}) => ServerMessage::Ended,
        Body::Refused(refused) => ServerMessage::Refused(refused.into()),
        Body::Reconnect(proto::Reconnect {}) => ServerMessage::Reconnect,
    }))
}

impl From<proto::Refused> for Refusal {
    fn from(refused: proto::Refused) -> Self {
        use proto::RefusalCode as Wire;
        let code = match refused.code() {
            Wire::Unspecified => RefusalCode::Unspecified,
            Wire::Version => RefusalCode::Version,
            Wire::Unauthenticated => RefusalCode::Unauthenticated,
            Wire::RunExists => RefusalCode::RunExists,
            Wire::OrchestrationMismatch => RefusalCode::OrchestrationMismatch,
            Wire::RunNotFound => RefusalCode::RunNotFound,
            Wire::RunDeleted => RefusalCode::RunDeleted,
            Wire::ProjectNotFound => RefusalCode::ProjectNotFound,
            Wire::Invalid => RefusalCode::Invalid,
            Wire::SequenceGap => RefusalCode::SequenceGap,
            Wire::Malformed => RefusalCode::Malformed,
            Wire::Superseded => RefusalCode::Superseded,
            Wire::Unavailable => RefusalCode::Unavailable,
        };
        Self { code, message: refused.message, retryable: refused.retryable }
    }
}

/// The answer to `OpenRun`, put together from its parts.
#[derive(Default)]
pub(super) struct OpenRunAnswer {
    opened: Option<OpenedRun>,
}

impl OpenRunAnswer {
    pub fn add(&mut self, part: proto::OpenRunResponse) -> Result<(), TransportError> {
        use proto::open_run_response::Body;
        match part.body {
            None => Ok(()),
            Some(Body::Refused(refused)) => Err(TransportError::Refused(refused.into())),
            Some(Body::Opened(opened)) => {
                check_version(opened.version)?;
                self.opened = Some(opened_run(opened));
                Ok(())
            }
            Some(Body::Cursors(page)) => {
                let opened = self.opened.as_mut().ok_or_else(|| malformed("cursors came first"))?;
                opened.series_cursors.extend(page.series.into_iter().filter_map(series_cursor));
                let environments = page.environments.into_iter().map(environment_cursor);
                opened.environment_cursors.extend(environments);
                Ok(())
            }
        }
    }

    pub fn finish(self) -> Result<OpenedRun, TransportError> {
        self.opened.ok_or_else(|| malformed("it answered nothing to the opening of the run"))
    }
}

fn opened_run(opened: proto::Opened) -> OpenedRun {
    OpenedRun {
        run_id: opened.run_id.try_into().ok().map(RunId),
        workspace_name: opened.workspace_name,
        project_name: opened.project_name,
        run_name: opened.run_name,
        created: opened.created,
        requested_name: opened.requested_name,
        server_version: opened.server_version,
        ..OpenedRun::default()
    }
}

/// `None` for a series of a scale that this engine does not know, so cannot log to.
fn series_cursor(cursor: proto::SeriesCursor) -> Option<SeriesCursor> {
    let scale = match cursor.scale() {
        proto::Scale::Unspecified => return None,
        proto::Scale::MlStep => Scale::MlStep,
        proto::Scale::Episode => Scale::Episode,
        proto::Scale::EnvironmentStep => Scale::EnvironmentStep,
    };
    let mut labels: Vec<_> = cursor.labels.into_iter().collect();
    labels.sort_unstable();
    let position = Position { rl_step: cursor.rl_step, episode: cursor.episode, step: cursor.step };
    Some(SeriesCursor {
        metric_name: cursor.metric_name,
        scale,
        labels,
        env_id: cursor.env_id,
        position,
    })
}

fn environment_cursor(cursor: proto::EnvironmentCursor) -> EnvironmentCursor {
    EnvironmentCursor {
        env_id: cursor.env_id,
        rl_step: cursor.rl_step,
        episode: cursor.episode,
        ended_episode: cursor.ended_episode,
    }
}

fn check_version(version: u32) -> Result<(), TransportError> {
    if PROTOCOL_VERSIONS.contains(&version) {
        return Ok(());
    }
    Err(TransportError::Refused(Refusal {
        code: RefusalCode::Version,
        message: format!(
            "the server speaks version {version} of the wire contract, this metrana {} to {}: \
             upgrade the older of the two",
            PROTOCOL_VERSIONS.start(),
            PROTOCOL_VERSIONS.end()
        ),
        retryable: false,
    }))
}

fn malformed(what: &str) -> TransportError {
    TransportError::Unreachable(format!("the server does not keep to the wire contract: {what}"))
}
