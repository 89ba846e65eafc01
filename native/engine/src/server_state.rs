//! The small file by which a local server says where it listens: `<data dir>/server/state.json`,
//! mode 0600 because it holds the token that opens the server to its owner alone.
//!
//! ```json
//! {"version": 1, "http_url": "http://127.0.0.1:7670", "grpc_url": "http://127.0.0.1:7671",
//!  "token": "…", "pid": 4711, "started_at_ms": 1790000000000}
//! ```

use std::fs;
use std::io;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Deserialize;

/// Longest a process waits at its start for a local server to take a connection.
pub const PROBE_TIMEOUT: Duration = Duration::from_millis(200);

/// The version of the file this engine reads; it may hold fields that it does not know.
const VERSION: u32 = 1;

/// Where a local server listens.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct ServerState {
    pub version: u32,
    pub http_url: String,
    pub grpc_url: String,
    /// `None` or empty: the server asks for none (`--no-token`).
    #[serde(default)]
    pub token: Option<String>,
    pub pid: u32,
    pub started_at_ms: i64,
}

/// The token never reaches a log line.
impl std::fmt::Debug for ServerState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerState")
            .field("version", &self.version)
            .field("http_url", &self.http_url)
            .field("grpc_url", &self.grpc_url)
            .field("pid", &self.pid)
            .field("started_at_ms", &self.started_at_ms)
            .finish_non_exhaustive()
    }
}

/// A state file that is there and cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ServerStateError {
    #[error("cannot read {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} is not a server's state file: {source}", path.display())]
    Malformed { path: PathBuf, source: serde_json::Error },
    #[error(
        "{} was written by a newer metrana (version {version} of the file): upgrade this one",
        path.display()
    )]
    Newer { path: PathBuf, version: u32 },
}

impl ServerState {
    /// Where the server of this data directory keeps its state.
    pub fn path(data_dir: &Path) -> PathBuf {
        data_dir.join("server").join("state.json")
    }

    /// Reads the state file; `None` if there is none, so no server that ended cleanly or runs.
    ///
    /// # Errors
    ///
    /// The file is there but unreadable, malformed, or of a newer version.
    pub fn read(data_dir: &Path) -> Result<Option<Self>, ServerStateError> {
        let path = Self::path(data_dir);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(ServerStateError::Io { path, source }),
        };
        let malformed = |source| ServerStateError::Malformed { path: path.clone(), source };
        // The version first: a newer file may lack fields of this one.
        let Version { version } = serde_json::from_slice(&text).map_err(malformed)?;
        if version > VERSION {
            return Err(ServerStateError::Newer { path, version });
        }
        serde_json::from_slice(&text).map(Some).map_err(malformed)
    }

    /// The token to send, if the server asks for one.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref().filter(|token| !token.is_empty())
    }

    /// Whether something takes connections at the gRPC address, waiting at most `timeout`. Blocks.
    pub fn listens(&self, timeout: Duration) -> bool {
        let Some(address) = authority(&self.grpc_url) else { return false };
        let begun = Instant::now();
        address.to_socket_addrs().is_ok_and(|addresses| {
            addresses.into_iter().any(|address| {
                let left = timeout.saturating_sub(begun.elapsed());
                !left.is_zero() && TcpStream::connect_timeout(&address, left).is_ok()
            })
        })
    }
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// The running local server of a data directory, if one takes connections within `timeout`. Blocks.
///
/// A state file left behind by a server that was killed gives `None`.
///
/// # Errors
///
/// As [`ServerState::read`].
pub fn find_local_server(
    data_dir: &Path,
    timeout: Duration,
) -> Result<Option<ServerState>, ServerStateError> {
    Ok(ServerState::read(data_dir)?.filter(|state| state.listens(timeout)))
}

/// `host:port` of a URL.
fn authority(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    match scheme {
        _ if has_port => Some(authority.to_owned()),
        "http" => Some(format!("{authority}:80")),
        "https" => Some(format!("{authority}:443")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn data_dir_with(state: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("server")).unwrap();
        fs::write(ServerState::path(dir.path()), state).unwrap();
        dir
    }

    fn state_at(port: u16) -> String {
        format!(
            r#"{{"version": 1, "http_url": "http://127.0.0.1:1", "grpc_url": "http://127.0.0.1:{port}",
                "token": "secret", "pid": 7, "started_at_ms": 1790000000000, "later": true}}"#
        )
    }

    #[test]
    fn test_reads_none_where_no_server_ever_ran() {
        let dir = tempfile::tempdir().unwrap();
        assert!(ServerState::read(dir.path()).unwrap().is_none());
    }

    #[test]
    fn test_reads_every_field_and_ignores_unknown_ones() {
        let dir = data_dir_with(&state_at(7671));
        let state = ServerState::read(dir.path()).unwrap().unwrap();
        assert_eq!(state.grpc_url, "http://127.0.0.1:7671");
        assert_eq!(state.token(), Some("secret"));
        assert_eq!((state.pid, state.started_at_ms), (7, 1_790_000_000_000));
        assert!(!format!("{state:?}").contains("secret"));
    }

    #[test]
    fn test_an_empty_or_missing_token_is_none() {
        for token in [r#""token": "","#, r#""token": null,"#, ""] {
            let text = format!(
                r#"{{"version": 1, {token} "http_url": "", "grpc_url": "", "pid": 1, "started_at_ms": 0}}"#
            );
            let dir = data_dir_with(&text);
            assert_eq!(ServerState::read(dir.path()).unwrap().unwrap().token(), None);
        }
    }

    #[test]
    fn test_a_newer_or_malformed_file_is_an_error() {
        let newer = data_dir_with(r#"{"version": 2}"#);
        let error = ServerState::read(newer.path()).unwrap_err();
        assert!(matches!(error, ServerStateError::Newer { version: 2, .. }));
        let malformed = data_dir_with("{");
        let error = ServerState::read(malformed.path()).unwrap_err();
        assert!(matches!(error, ServerStateError::Malformed { .. }));
    }

    #[test]
    fn test_finds_a_server_that_listens_and_no_other() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let dir = data_dir_with(&state_at(listener.local_addr().unwrap().port()));
        let wait = Duration::from_secs(10);
        assert!(find_local_server(dir.path(), wait).unwrap().is_some());
        drop(listener);
        assert!(find_local_server(dir.path(), wait).unwrap().is_none());
    }

    #[test]
    fn test_authorities_get_their_schemes_port() {
        assert_eq!(authority("http://h:1/x").as_deref(), Some("h:1"));
        assert_eq!(authority("https://h").as_deref(), Some("h:443"));
        assert_eq!(authority("http://[::1]/").as_deref(), Some("[::1]:80"));
        assert_eq!(authority("ftp://h"), None);
        assert_eq!(authority("h:1"), None);
    }
}
