//! The real transport: gRPC over HTTP/2, with TLS for `https`.
//!
//! A stream's call runs in a task of its own with the hello already in its request stream, because
//! a call returns only with the server's first headers, and some servers hold those back until they
//! have read something.

mod wire;

#[cfg(test)]
mod tests;

use std::error::Error;
use std::fmt;
use std::time::Duration;

use tokio::sync::{OnceCell, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status, Streaming};

use self::wire::proto::ingestion_client::IngestionClient;
use self::wire::{OpenRunAnswer, proto};
use super::{
    BatchStream, BoxFuture, ClientMessage, Hello, OpenRun, OpenedRun, Refusal, RefusalCode,
    ServerMessage, Transport, TransportError,
};

/// Longest time a connection may take to come about, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Between HTTP/2 pings. Servers of the C core take them at most every five minutes while they send
/// nothing (else GOAWAY `too_many_pings`); a dead peer is noticed earlier by the ack watchdog.
const PING_INTERVAL: Duration = Duration::from_secs(330);
const PING_TIMEOUT: Duration = Duration::from_secs(30);
/// Keeps idle connections in the tables of firewalls and NAT gateways; costs no HTTP/2 ping.
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);
/// For what comes down: pages of cursors. What goes up is bounded by the server's windows.
const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// Largest message taken from a server.
const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// A way to a server by its URL. Connects at the first call.
pub struct GrpcTransport {
    endpoint: Endpoint,
    channel: OnceCell<Channel>,
    authorization: Option<MetadataValue<Ascii>>,
}

/// The token never reaches a log line.
impl fmt::Debug for GrpcTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcTransport").field("uri", self.endpoint.uri()).finish_non_exhaustive()
    }
}

/// A destination that no connection can be made to, however often it is tried.
#[derive(Debug, thiserror::Error)]
pub enum DestinationError {
    #[error("{url:?} is not a URL of the form http://host:port or https://host")]
    Url { url: String },
    #[error("a token may hold printable ASCII characters only")]
    Token,
    #[error("cannot set up TLS: {0}")]
    Tls(#[source] tonic::transport::Error),
}

impl GrpcTransport {
    /// A transport to `url` (`http://…` or `https://…`), sending `token` as a bearer token.
    ///
    /// # Errors
    ///
    /// The URL or the token has a wrong form, or TLS cannot be set up on this machine.
    pub fn new(url: &str, token: Option<&str>) -> Result<Self, DestinationError> {
        let authorization = token.map(bearer).transpose()?;
        let endpoint = Endpoint::from_shared(url.to_owned())
            .ok()
            .filter(|endpoint| {
                let uri = endpoint.uri();
                uri.host().is_some() && matches!(uri.scheme_str(), Some("http" | "https"))
            })
            .ok_or_else(|| DestinationError::Url { url: url.to_owned() })?;
        let endpoint = tuned(endpoint).map_err(DestinationError::Tls)?;
        Ok(Self { endpoint, channel: OnceCell::new(), authorization })
    }

    /// A client on the one connection of this transport.
    async fn client(&self) -> Result<IngestionClient<Channel>, TransportError> {
        let channel = self
            .channel
            .get_or_try_init(|| self.endpoint.connect())
            .await
            .map_err(|error| self.unreachable(&innermost(&error)))?;
        Ok(IngestionClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES))
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(authorization) = &self.authorization {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        request
    }

    fn unreachable(&self, reason: &str) -> TransportError {
        TransportError::Unreachable(format!("cannot reach {}: {reason}", self.endpoint.uri()))
    }
}

impl Transport for GrpcTransport {
    fn open_run(&self, request: OpenRun) -> BoxFuture<'_, Result<OpenedRun, TransportError>> {
        Box::pin(async move {
            let mut client = self.client().await?;
            let mut answers = client
                .open_run(self.request(proto::OpenRunRequest::from(request)))
                .await
                .map_err(|status| failure(&status))?
                .into_inner();
            let mut answer = OpenRunAnswer::default();
            while let Some(part) = answers.message().await.map_err(|status| failure(&status))? {
                answer.add(part)?;
            }
            answer.finish()
        })
    }

    fn stream(&self, hello: Hello) -> BoxFuture<'_, Result<BatchStream, TransportError>> {
        Box::pin(async move {
            let client = self.client().await?;
            let (outgoing, messages) = mpsc::channel(1);
            let (answers, incoming) = mpsc::channel(16);
            let messages = tokio_stream::once(ClientMessage::Hello(hello))
                .chain(ReceiverStream::new(messages))
                .map(proto::ClientMessage::from);
            tokio::spawn(call(client, self.request(messages), answers));
            Ok(BatchStream { outgoing, incoming })
        })
    }
}

type Answers = mpsc::Sender<Result<ServerMessage, TransportError>>;

/// Carries one stream; ends when either side does.
async fn call(
    client: IngestionClient<Channel>,
    messages: Request<impl Stream<Item = proto::ClientMessage> + Send + 'static>,
    answers: Answers,
) {
    tokio::select! {
        result = carry(client, messages, &answers) => if let Err(error) = result {
            // The error is that nobody listens any more.
            let _ = answers.send(Err(error)).await;
        },
        () = answers.closed() => {}
    }
}

async fn carry(
    mut client: IngestionClient<Channel>,
    messages: Request<impl Stream<Item = proto::ClientMessage> + Send + 'static>,
    answers: &Answers,
) -> Result<(), TransportError> {
    let mut incoming: Streaming<proto::ServerMessage> =
        client.stream_batches(messages).await.map_err(|status| failure(&status))?.into_inner();
    while let Some(message) = incoming.message().await.map_err(|status| failure(&status))? {
        if let Some(message) = wire::server_message(message)?
            && answers.send(Ok(message)).await.is_err()
        {
            break;
        }
    }
    Ok(())
}

fn tuned(endpoint: Endpoint) -> Result<Endpoint, tonic::transport::Error> {
    let is_https = endpoint.uri().scheme_str() == Some("https");
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .tcp_keepalive(Some(TCP_KEEPALIVE))
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .user_agent(concat!("metrana/", env!("CARGO_PKG_VERSION")))?;
    if is_https {
        // Both the system's certificate authorities and Mozilla's: slim containers have none.
        endpoint.tls_config(ClientTlsConfig::new().with_enabled_roots())
    } else {
        Ok(endpoint)
    }
}

fn bearer(token: &str) -> Result<MetadataValue<Ascii>, DestinationError> {
    let mut value: MetadataValue<Ascii> =
        format!("Bearer {token}").parse().map_err(|_| DestinationError::Token)?;
    value.set_sensitive(true);
    Ok(value)
}

/// What a status means to a sender. A server that says no does so with a `Refused` message; a
/// status comes from what lies between, or from a server that fails.
fn failure(status: &Status) -> TransportError {
    let message = match status.source() {
        Some(source) if status.message().is_empty() => innermost(source),
        _ => status.message().to_owned(),
    };
    let refused =
        |code, retryable, message| TransportError::Refused(Refusal { code, message, retryable });
    match status.code() {
        Code::Unauthenticated | Code::PermissionDenied => {
            refused(RefusalCode::Unauthenticated, false, message)
        }
        // A wrong URL, but also a load balancer whose servers are being replaced.
        Code::Unimplemented => refused(
            RefusalCode::Unavailable,
            true,
            format!("what answers there is no metrana ingestion server ({message})"),
        ),
        code => TransportError::Unreachable(format!("the call failed ({code:?}): {message}")),
    }
}

/// The first cause, which says what happened: the layers above it say "transport error".
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
