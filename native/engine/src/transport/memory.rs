//! The in-memory twin of the real transport, for tests: a server that keeps the rules of the wire
//! contract and a script that breaks connections, holds back acknowledgements or refuses.
//!
//! The server applies a batch exactly once by its seq, refuses gaps and wrong checksums, and lets
//! the newest stream of a writer win, so a sender that is wrong about any of it is found out.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::sync::{Mutex, MutexGuard};
use tokio::sync::{mpsc, watch};

use super::{
    Batch, BatchStream, BoxFuture, ClientMessage, Heartbeat, Hello, OpenRun, OpenedRun, Refusal,
    RefusalCode, ServerMessage, Transport, TransportError, WriterEnd,
};
use crate::sender::Connector;
use crate::types::{RunId, Seq, WriterId};

/// What the server is about to do.
#[derive(Debug)]
pub enum Event<'a> {
    OpenRun(&'a OpenRun),
    /// A stream begins; `attempt` counts them from 1, over all writers.
    Stream {
        attempt: usize,
        hello: &'a Hello,
    },
    /// A message arrived; `index` counts those after the hello from 1, in its stream.
    Message {
        attempt: usize,
        index: usize,
        message: &'a ClientMessage,
    },
}

/// What it does instead. For an event that cannot be answered so, it is [`Action::Serve`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// What a good server does.
    Serve,
    /// Waits first.
    ServeAfter(Duration),
    /// Applies a batch and leaves its acknowledgement to a later one's.
    Withhold,
    /// Acknowledges twice.
    AckTwice,
    /// Acknowledges this seq, whatever it has.
    Claim(Seq),
    /// Breaks the connection; the message is lost.
    Drop,
    /// Applies the message and breaks the connection; the answer is lost.
    ServeAndDrop,
    /// Reads on and never answers again in this stream.
    FallSilent,
    /// Serves and asks for a new stream.
    Reconnect,
    Refuse(Refusal),
}

type Script = Box<dyn FnMut(Event<'_>) -> Action + Send>;

/// What the server has seen and keeps.
#[derive(Default)]
pub struct Records {
    pub opened: Vec<OpenRun>,
    pub hellos: Vec<Hello>,
    pub heartbeats: Vec<Heartbeat>,
    pub writers: HashMap<WriterId, WriterRecord>,
    /// Welcomes say what is stored, as those of older servers do not.
    pub tells_stored: bool,
    streams: usize,
}

/// One writer at the server.
#[derive(Debug, Default)]
pub struct WriterRecord {
    /// Applied, once each.
    pub batches: BTreeMap<Seq, Batch>,
    /// Every batch that arrived, in order, repeats included.
    pub arrivals: Vec<Seq>,
    pub declarations: Vec<Vec<u8>>,
    pub end: Option<WriterEnd>,
    watermark: Seq,
    /// The stream that may write.
    stream: usize,
}

/// A server in memory.
pub struct MemoryServer {
    records: Mutex<Records>,
    script: Mutex<Script>,
    /// Bumped with every change of the records.
    changes: watch::Sender<u64>,
}

/// A way to a [`MemoryServer`].
#[derive(Clone)]
pub struct MemoryTransport(pub Arc<MemoryServer>);

impl MemoryServer {
    /// A server that serves.
    pub fn new() -> Arc<Self> {
        Self::with_script(|_| Action::Serve)
    }

    /// A server that does what `script` says.
    pub fn with_script(script: impl FnMut(Event<'_>) -> Action + Send + 'static) -> Arc<Self> {
        Arc::new(Self {
            records: Mutex::default(),
            script: Mutex::new(Box::new(script)),
            changes: watch::Sender::new(0),
        })
    }

    /// Replaces the script.
    pub fn script(&self, script: impl FnMut(Event<'_>) -> Action + Send + 'static) {
        *self.script.lock() = Box::new(script);
    }

    pub fn records(&self) -> MutexGuard<'_, Records> {
        self.records.lock()
    }

    /// The seqs of a writer that are applied.
    pub fn applied(&self, writer_id: WriterId) -> Vec<Seq> {
        let records = self.records();
        records
            .writers
            .get(&writer_id)
            .map_or_else(Vec::new, |w| w.batches.keys().copied().collect())
    }

    /// Resolves once the records are as `condition` says.
    pub async fn until(&self, condition: impl Fn(&Records) -> bool) {
        let mut changes = self.changes.subscribe();
        while !condition(&self.records()) {
            // The sending end is part of `self`.
            let _ = changes.changed().await;
        }
    }

    /// How a run was opened by its name.
    fn named(&self, run_id: RunId) -> Option<OpenRun> {
        let records = self.records();
        records.opened.iter().find(|one| one.run_id == run_id && !one.by_run_id).cloned()
    }

    fn ask(&self, event: Event<'_>) -> Action {
        (self.script.lock())(event)
    }

    fn record<T>(&self, change: impl FnOnce(&mut Records) -> T) -> T {
        let result = change(&mut self.records.lock());
        self.changes.send_modify(|count| *count += 1);
        result
    }
}

impl Transport for MemoryTransport {
    fn open_run(&self, request: OpenRun) -> BoxFuture<'_, Result<OpenedRun, TransportError>> {
        Box::pin(async move {
            let action = self.0.ask(Event::OpenRun(&request));
            wait_as(&action).await;
            match action {
                Action::Refuse(refusal) => return Err(TransportError::Refused(refusal)),
                Action::Drop => return Err(broken()),
                _ => {}
            }
            let known = request.by_run_id.then(|| self.0.named(request.run_id));
            let named = match known {
                Some(None) => {
                    let refusal = refusal(RefusalCode::RunNotFound, "no such run");
                    return Err(TransportError::Refused(refusal));
                }
                Some(Some(named)) => named,
                None => request.clone(),
            };
            let opened = OpenedRun {
                run_id: Some(request.run_id),
                workspace_name: named.workspace_name,
                project_name: named.project_name,
                run_name: named.run_name,
                created: !request.by_run_id,
                ..OpenedRun::default()
            };
            self.0.record(|records| records.opened.push(request));
            if action == Action::ServeAndDrop { Err(broken()) } else { Ok(opened) }
        })
    }

    fn stream(&self, hello: Hello) -> BoxFuture<'_, Result<BatchStream, TransportError>> {
        Box::pin(async move {
            let attempt = self.0.record(|records| {
                records.hellos.push(hello.clone());
                records.streams += 1;
                records.streams
            });
            let action = self.0.ask(Event::Stream { attempt, hello: &hello });
            if action == Action::Drop {
                return Err(broken());
            }
            let (outgoing, from_client) = mpsc::channel(1);
            let (to_client, incoming) = mpsc::channel(64);
            let call = Call { server: Arc::clone(&self.0), attempt, hello, from_client, to_client };
            tokio::spawn(call.run(action));
            Ok(BatchStream { outgoing, incoming })
        })
    }
}

impl Connector for MemoryTransport {
    fn transport(&self) -> Result<Arc<dyn Transport>, TransportError> {
        Ok(Arc::new(self.clone()))
    }

    fn describe(&self) -> String {
        "memory://".to_owned()
    }
}

/// One stream, at the server's end.
struct Call {
    server: Arc<MemoryServer>,
    attempt: usize,
    hello: Hello,
    from_client: mpsc::Receiver<ClientMessage>,
    to_client: mpsc::Sender<Result<ServerMessage, TransportError>>,
}

impl Call {
    async fn run(mut self, action: Action) {
        // The error is that the client has gone, which ends the call like every other way.
        if let Err(Some(error)) = self.serve(action).await {
            let _ = self.to_client.send(Err(error)).await;
        }
    }

    /// `Err`: the call is broken, and with what; `None` if the client has gone.
    async fn serve(&mut self, action: Action) -> Result<(), Option<TransportError>> {
        wait_as(&action).await;
        match action {
            Action::FallSilent => return self.fall_silent().await,
            Action::Refuse(refusal) => return self.answer(ServerMessage::Refused(refusal)).await,
            _ => {}
        }
        let stored = self.begin();
        let server_version = "memory".to_owned();
        self.answer(ServerMessage::Welcome { server_version, stored }).await?;
        self.follow_up(&action).await?;
        let mut index = 0;
        while let Some(message) = self.from_client.recv().await {
            index += 1;
            let event = Event::Message { attempt: self.attempt, index, message: &message };
            let action = self.server.ask(event);
            wait_as(&action).await;
            match action {
                Action::Drop => return Err(Some(broken())),
                Action::FallSilent => return self.fall_silent().await,
                Action::Refuse(refusal) => {
                    return self.answer(ServerMessage::Refused(refusal)).await;
                }
                _ => {}
            }
            let answer = match self.apply(message) {
                Ok(answer) => answer,
                Err(refusal) => return self.answer(ServerMessage::Refused(refusal)).await,
            };
            if let Some(answer) = answer
                && action != Action::Withhold
                && action != Action::ServeAndDrop
            {
                let repeat = (action == Action::AckTwice).then(|| answer.clone());
                for answer in [Some(answer), repeat].into_iter().flatten() {
                    self.answer(answer).await?;
                }
            }
            self.follow_up(&action).await?;
        }
        Ok(())
    }

    async fn follow_up(&self, action: &Action) -> Result<(), Option<TransportError>> {
        match action {
            Action::ServeAndDrop => Err(Some(broken())),
            Action::Reconnect => self.answer(ServerMessage::Reconnect).await,
            Action::Claim(seq) => self.answer(ServerMessage::Ack(*seq)).await,
            _ => Ok(()),
        }
    }

    async fn answer(&self, message: ServerMessage) -> Result<(), Option<TransportError>> {
        self.to_client.send(Ok(message)).await.map_err(|_| None)
    }

    async fn fall_silent(&mut self) -> Result<(), Option<TransportError>> {
        while self.from_client.recv().await.is_some() {}
        Ok(())
    }

    /// Gives what the welcome says is stored.
    fn begin(&self) -> Option<Seq> {
        let Hello { writer_id, first_seq, ref lost, .. } = self.hello;
        self.server.record(|records| {
            let tells_stored = records.tells_stored;
            let writer = records.writers.entry(writer_id).or_default();
            writer.stream = writer.stream.max(self.attempt);
            // All below the hello's first seq has been acknowledged some time.
            let before = Seq(first_seq.0.saturating_sub(1));
            // Unless the server has said otherwise, and the client went back for it.
            let watermark = if tells_stored { Seq(0) } else { writer.watermark };
            writer.watermark = watermark.max(before);
            writer.pass_lost(lost);
            let stored = writer.batches.range(..first_seq).next_back();
            tells_stored.then(|| stored.map_or(Seq(0), |(seq, _)| *seq))
        })
    }

    fn apply(&self, message: ClientMessage) -> Result<Option<ServerMessage>, Refusal> {
        let writer_id = self.hello.writer_id;
        self.server.record(|records| {
            if let ClientMessage::Heartbeat(heartbeat) = message {
                records.heartbeats.push(heartbeat);
                return Ok(None);
            }
            let writer = records.writers.entry(writer_id).or_default();
            if writer.stream != self.attempt {
                return Err(refusal(RefusalCode::Superseded, "a newer stream took over"));
            }
            match message {
                ClientMessage::Batch(batch) => writer.apply(batch, &self.hello.lost).map(Some),
                ClientMessage::Declarations { payload, payload_crc32c } => {
                    check(&payload, payload_crc32c)?;
                    writer.declarations.push(payload);
                    Ok(None)
                }
                ClientMessage::End(end) => writer.end(end).map(Some),
                ClientMessage::Hello(_) | ClientMessage::Heartbeat(_) => {
                    Err(refusal(RefusalCode::Malformed, "hello comes first and once"))
                }
            }
        })
    }
}

impl WriterRecord {
    fn apply(&mut self, batch: Batch, lost: &[(Seq, Seq)]) -> Result<ServerMessage, Refusal> {
        check(&batch.payload, batch.payload_crc32c)?;
        self.arrivals.push(batch.seq);
        if batch.seq.0 > self.watermark.0 + 1 {
            return Err(refusal(RefusalCode::SequenceGap, "a batch is missing"));
        }
        if batch.seq > self.watermark {
            self.watermark = batch.seq;
            self.batches.entry(batch.seq).or_insert(batch);
            self.pass_lost(lost);
        }
        Ok(ServerMessage::Ack(self.watermark))
    }

    fn end(&mut self, end: WriterEnd) -> Result<ServerMessage, Refusal> {
        if end.last_seq != self.watermark {
            return Err(refusal(RefusalCode::SequenceGap, "a batch is missing at the end"));
        }
        self.end = Some(end);
        Ok(ServerMessage::Ended)
    }

    fn pass_lost(&mut self, lost: &[(Seq, Seq)]) {
        while let Some((_, last)) = lost
            .iter()
            .find(|(first, last)| first.0 <= self.watermark.0 + 1 && *last > self.watermark)
        {
            self.watermark = *last;
        }
    }
}

async fn wait_as(action: &Action) {
    if let Action::ServeAfter(delay) = action {
        tokio::time::sleep(*delay).await;
    }
}

fn check(payload: &[u8], payload_crc32c: u32) -> Result<(), Refusal> {
    if crc32c::crc32c(payload) == payload_crc32c {
        Ok(())
    } else {
        Err(refusal(RefusalCode::Malformed, "the checksum does not match"))
    }
}

/// A refusal that is final.
pub fn refusal(code: RefusalCode, message: &str) -> Refusal {
    Refusal { code, message: message.to_owned(), retryable: false }
}

fn broken() -> TransportError {
    TransportError::Unreachable("the connection was broken".to_owned())
}
