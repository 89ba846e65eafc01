//! Where a sender sends: asked anew before each attempt, because a local server may have come back
//! at another port and with another token.

use std::sync::Arc;

use crate::transport::{Transport, TransportError};

/// Finds the way to a destination.
pub trait Connector: Send + Sync {
    /// A transport for the next attempt. May read a small file.
    ///
    /// # Errors
    ///
    /// There is nowhere to connect to just now, or nowhere that this engine can connect to.
    fn transport(&self) -> Result<Arc<dyn Transport>, TransportError>;

    /// The destination as users know it: a URL or "the local server".
    fn describe(&self) -> String;

    /// Where that is just now, for `status()`: the URL, if there is one to be known.
    fn url(&self) -> String {
        self.describe()
    }

    /// What must not be written anywhere: the key or token that is sent.
    fn secret(&self) -> Option<String> {
        None
    }

    /// Whether a refused token may be put right by asking for a transport again.
    fn refreshes_token(&self) -> bool {
        false
    }
}

#[cfg(feature = "grpc")]
pub use destination::Destination;

#[cfg(feature = "grpc")]
mod destination {
    use std::fmt;
    use std::path::PathBuf;
    use std::sync::Arc;

    use super::Connector;
    use crate::server_state::ServerState;
    use crate::transport::grpc::GrpcTransport;
    use crate::transport::{Refusal, RefusalCode, Transport, TransportError};

    /// Where a run's data goes.
    #[derive(Clone, PartialEq, Eq)]
    pub enum Destination {
        /// The server of this data directory, wherever its state file says that it listens.
        Local { data_dir: PathBuf },
        /// A server by its URL; `token` is sent as a bearer token.
        Server { url: String, token: Option<String> },
    }

    /// The token never reaches a log line.
    impl fmt::Debug for Destination {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(&self.describe())
        }
    }

    impl Connector for Destination {
        fn transport(&self) -> Result<Arc<dyn Transport>, TransportError> {
            let transport = match self {
                Self::Server { url, token } => GrpcTransport::new(url, token.as_deref()),
                Self::Local { data_dir } => {
                    let state = ServerState::read(data_dir)
                        .map_err(|error| TransportError::Unreachable(error.to_string()))?
                        .ok_or_else(|| {
                            TransportError::Unreachable("no local server is running".to_owned())
                        })?;
                    GrpcTransport::new(&state.grpc_url, state.token())
                }
            };
            match transport {
                Ok(transport) => Ok(Arc::new(transport)),
                Err(error) => Err(TransportError::Refused(Refusal {
                    code: RefusalCode::Invalid,
                    message: error.to_string(),
                    // A local server's file is written anew by the next server.
                    retryable: matches!(self, Self::Local { .. }),
                })),
            }
        }

        fn describe(&self) -> String {
            match self {
                Self::Local { .. } => "the local server".to_owned(),
                Self::Server { url, .. } => url.clone(),
            }
        }

        fn url(&self) -> String {
            match self {
                // Between two local servers nobody knows where the next will be.
                Self::Local { data_dir } => match ServerState::read(data_dir) {
                    Ok(Some(state)) => state.grpc_url,
                    Ok(None) | Err(_) => self.describe(),
                },
                Self::Server { .. } => self.describe(),
            }
        }

        fn secret(&self) -> Option<String> {
            match self {
                Self::Local { data_dir } => {
                    ServerState::read(data_dir).ok()??.token().map(str::to_owned)
                }
                Self::Server { token, .. } => token.clone(),
            }
        }

        fn refreshes_token(&self) -> bool {
            matches!(self, Self::Local { .. })
        }
    }
}
