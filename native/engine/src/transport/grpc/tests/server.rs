//! A tonic server on loopback that keeps to the wire contract, with manners of one's choice.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::sync::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tonic::transport::Server;
use tonic::{Response, async_trait};

use super::super::proto::ingestion_server::{Ingestion, IngestionServer};
use super::super::*;

/// How the server behaves.
#[derive(Clone, Debug, Default)]
pub(super) struct Manners {
    /// Calls without it are answered with UNAUTHENTICATED.
    pub token: Option<String>,
    /// Waits so long before the first headers.
    pub header_delay: Duration,
    /// Never sends headers.
    pub is_mute: bool,
    /// Answers every batch of the first stream with a reconnect.
    pub sends_away: bool,
    /// Refuses to open a run.
    pub refusal: Option<proto::Refused>,
    pub version: u32,
    /// What its welcome says that it has.
    pub stored: Option<u64>,
}

impl Manners {
    pub fn good() -> Self {
        Self { version: 1, ..Self::default() }
    }
}

/// What it has seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub opened: Vec<proto::OpenRunRequest>,
    pub messages: Vec<proto::client_message::Body>,
    pub user_agents: Vec<String>,
    pub streams: usize,
    pub watermark: u64,
}

#[derive(Clone, Debug)]
struct TestServer {
    manners: Manners,
    seen: Arc<Mutex<Seen>>,
}

type Answer = Result<proto::ServerMessage, Status>;

impl TestServer {
    fn check<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let text = |name| {
            request.metadata().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        self.seen.lock().user_agents.extend(text("user-agent"));
        let wanted = self.manners.token.as_ref().map(|token| format!("Bearer {token}"));
        if wanted.is_some() && text("authorization") != wanted {
            return Err(Status::unauthenticated("this server asks for another token"));
        }
        Ok(())
    }

    async fn converse(
        self,
        mut incoming: Streaming<proto::ClientMessage>,
        answers: mpsc::Sender<Answer>,
    ) {
        use proto::client_message::Body as Client;
        use proto::server_message::Body;
        let is_first = {
            let mut seen = self.seen.lock();
            seen.streams += 1;
            seen.streams == 1
        };
        while let Ok(Some(message)) = incoming.message().await {
            let Some(body) = message.body else { continue };
            let answer = match &body {
                Client::Hello(_) => Some(Body::Welcome(proto::Welcome {
                    version: self.manners.version,
                    server_version: "test".to_owned(),
                    stored_seq: self.manners.stored,
                })),
                Client::Batch(_) if self.manners.sends_away && is_first => {
                    Some(Body::Reconnect(proto::Reconnect {}))
                }
                Client::Batch(batch) => {
                    let mut seen = self.seen.lock();
                    assert!(batch.seq <= seen.watermark + 1, "a batch is missing");
                    seen.watermark = seen.watermark.max(batch.seq);
                    Some(Body::Ack(proto::Ack { seq: seen.watermark }))
                }
                Client::End(_) => Some(Body::Ended(proto::Ended {})),
                Client::Declarations(_) | Client::Heartbeat(_) => None,
            };
            self.seen.lock().messages.push(body);
            let Some(answer) = answer else { continue };
            if answers.send(Ok(proto::ServerMessage { body: Some(answer) })).await.is_err() {
                return;
            }
        }
    }
}

#[async_trait]
impl Ingestion for TestServer {
    type OpenRunStream = ReceiverStream<Result<proto::OpenRunResponse, Status>>;
    type StreamBatchesStream = ReceiverStream<Answer>;

    async fn open_run(
        &self,
        request: Request<proto::OpenRunRequest>,
    ) -> Result<Response<Self::OpenRunStream>, Status> {
        use proto::open_run_response::Body;
        self.check(&request)?;
        let request = request.into_inner();
        let mut parts = Vec::new();
        match &self.manners.refusal {
            Some(refused) => parts.push(Body::Refused(refused.clone())),
            None => parts.push(Body::Opened(opened(&request, self.manners.version))),
        }
        if request.want_cursors {
            parts.extend([cursors("a"), cursors("b")].map(Body::Cursors));
        }
        self.seen.lock().opened.push(request);
        let (sender, receiver) = mpsc::channel(8);
        for body in parts {
            let part = proto::OpenRunResponse { body: Some(body) };
            sender.send(Ok(part)).await.unwrap();
        }
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn stream_batches(
        &self,
        request: Request<Streaming<proto::ClientMessage>>,
    ) -> Result<Response<Self::StreamBatchesStream>, Status> {
        self.check(&request)?;
        if self.manners.is_mute {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(self.manners.header_delay).await;
        let (answers, receiver) = mpsc::channel(8);
        tokio::spawn(self.clone().converse(request.into_inner(), answers));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

fn opened(request: &proto::OpenRunRequest, version: u32) -> proto::Opened {
    proto::Opened {
        version,
        run_id: request.run_id.clone(),
        workspace_name: request.workspace_name.clone(),
        project_name: request.project_name.clone(),
        run_name: format!("{}-0a1b2c", request.run_name),
        created: true,
        requested_name: request.run_name.clone(),
        server_version: "test".to_owned(),
    }
}

fn cursors(name: &str) -> proto::CursorPage {
    let series = |scale: proto::Scale| proto::SeriesCursor {
        metric_name: name.to_owned(),
        scale: scale.into(),
        labels: [("z", "1"), ("a", "2")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        env_id: "env".to_owned(),
        rl_step: -1,
        episode: 7,
        step: -1,
    };
    proto::CursorPage {
        series: vec![series(proto::Scale::Episode), series(proto::Scale::Unspecified)],
        environments: vec![proto::EnvironmentCursor {
            env_id: name.to_owned(),
            rl_step: 1,
            episode: 2,
            ended_episode: -1,
        }],
    }
}

/// A server in a thread of its own, until this is dropped.
pub(super) struct Running {
    pub url: String,
    pub seen: Arc<Mutex<Seen>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    pub fn start(manners: Manners) -> Self {
        Self::start_at("127.0.0.1:0", manners, Arc::default())
    }

    pub fn start_at(address: &str, manners: Manners, seen: Arc<Mutex<Seen>>) -> Self {
        let listener = std::net::TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let service = IngestionServer::new(TestServer { manners, seen: Arc::clone(&seen) });
        let (stop, stopped) = oneshot::channel::<()>();
        let serve = async move {
            let connections = accepted(TcpListener::from_std(listener).unwrap());
            tokio::select! {
                result = Server::default().serve_with_incoming(service, connections) => {
                    result.unwrap();
                }
                _ = stopped => {}
            }
        };
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(serve);
        });
        Self { url, seen, stop: Some(stop), thread: Some(thread) }
    }

    /// As SIGKILL does it: the connections break.
    pub fn kill(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }

    pub fn transport(&self) -> GrpcTransport {
        GrpcTransport::new(&self.url, None).unwrap()
    }
}

fn accepted(listener: TcpListener) -> impl Stream<Item = std::io::Result<TcpStream>> + Send {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            if sender.send(Ok(connection)).await.is_err() {
                return;
            }
        }
    });
    ReceiverStream::new(receiver)
}
