//! Containers by name: asks the Docker Engine which process a container is.
//!
//! Owns one question of the Engine's API (`GET /containers/NAME/json`) over its Unix socket, and what may be wrong with
//! the answer. Translates a name into a process id, nothing else: what is done with it is the node's and `host`'s.
//! The path has no version, so that every Engine answers in its own; only fields that all versions have are read.

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;

/// Where the Engine listens unless DOCKER_HOST says otherwise.
pub const DEFAULT_SOCKET: &str = "/var/run/docker.sock";
/// Largest answer that is read, bytes.
const ANSWER_MAX: usize = 4 << 20;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its full id, 64 hexadecimal digits.
    pub id: String,
    /// Its name, without Docker's leading slash.
    pub name: String,
    /// Its first process, as the host numbers it.
    pub pid: i32,
}

/// Why there is no container to attach.
#[derive(Debug, thiserror::Error)]
pub enum DockerError {
    /// DOCKER_HOST names something else than a Unix socket.
    #[error("DOCKER_HOST={0:?}: only a Docker Engine on this host can be used (unix:///path/to/docker.sock)")]
    NotLocal(String),
    /// Not a name that Docker gives, so it was not asked.
    #[error("{0:?} is neither a container's name or id, nor pid:N, nor netns:NAME")]
    NotAName(String),
    /// Nobody listens there.
    #[error("{}: no Docker Engine to ask for the container {name}: {source}", socket.display())]
    NoEngine {
        /// The socket that was tried.
        socket: PathBuf,
        /// Who was asked for.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// The Engine knows no such container, or several.
    #[error("{0}: no such container")]
    NoSuchContainer(String),
    /// It is created, exited or dead.
    #[error("{0}: the container is not running")]
    NotRunning(String),
    /// It has no network namespace of its own.
    #[error("{0}: the container uses the host's own network (--network host)")]
    HostNetwork(String),
    /// The Engine answers something else.
    #[error("{name}: the Docker Engine does not answer as it should: {why}")]
    Odd {
        /// Who was asked for.
        name: String,
        /// What it says.
        why: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: String,
    name: String,
    state: State,
    #[serde(default)]
    host_config: HostConfig,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    running: bool,
    pid: i32,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct HostConfig {
    network_mode: String,
}

/// The Engine's socket: that of `docker_host` (the value of DOCKER_HOST) or the usual one.
pub fn socket(docker_host: Option<&str>) -> Result<PathBuf, DockerError> {
    match docker_host.filter(|value| !value.is_empty()) {
        None => Ok(PathBuf::from(DEFAULT_SOCKET)),
        Some(value) => match value.strip_prefix("unix://") {
            Some(path) if path.starts_with('/') => Ok(PathBuf::from(path)),
            _ => Err(DockerError::NotLocal(value.to_string())),
        },
    }
}

/// Asks the Engine at `socket` for the running container `name` (its name, its id, or the beginning of its id).
pub async fn inspect(socket: &Path, name: &str) -> Result<Container, DockerError> {
    // What goes into the request line must not end it; these are all the characters that Docker allows.
    let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-');
    if name.is_empty()
        || name.len() > 255
        || !name.bytes().all(plain)
        || !name.starts_with(|c: char| c.is_ascii_alphanumeric())
    {
        return Err(DockerError::NotAName(name.chars().take(64).collect()));
    }
    let odd = |why: String| DockerError::Odd { name: name.to_string(), why };
    let asked = tokio::time::timeout(PATIENCE, ask(socket, name)).await;
    let (status, body) = asked.map_err(|_| odd(format!("no answer within {} s", PATIENCE.as_secs())))??;
    match status {
        StatusCode::OK => judge(name, serde_json::from_slice(&body).map_err(|e| odd(e.to_string()))?),
        StatusCode::NOT_FOUND => Err(DockerError::NoSuchContainer(name.to_string())),
        other => {
            Err(odd(format!("{other} {}", String::from_utf8_lossy(&body).trim().chars().take(200).collect::<String>())))
        }
    }
}

async fn ask(socket: &Path, name: &str) -> Result<(StatusCode, Bytes), DockerError> {
    let odd = |why: String| DockerError::Odd { name: name.to_string(), why };
    let connected = UnixStream::connect(socket).await;
    let stream = connected.map_err(|source| DockerError::NoEngine {
        socket: socket.to_path_buf(),
        name: name.to_string(),
        source,
    })?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| odd(e.to_string()))?;
    let connection = tokio::spawn(connection);
    let request = Request::get(format!("/containers/{name}/json")).header("Host", "docker").body(Empty::<Bytes>::new());
    let answer = sender.send_request(request.map_err(|e| odd(e.to_string()))?).await.map_err(|e| odd(e.to_string()))?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await.map_err(|e| odd(e.to_string()))?.to_bytes();
    connection.abort();
    Ok((status, body))
}

fn judge(asked: &str, found: Inspected) -> Result<Container, DockerError> {
    if !found.state.running || found.state.pid <= 0 {
        return Err(DockerError::NotRunning(asked.to_string()));
    }
    if found.host_config.network_mode == "host" {
        return Err(DockerError::HostNetwork(asked.to_string()));
    }
    Ok(Container { id: found.id, name: found.name.trim_start_matches('/').to_string(), pid: found.state.pid })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;

    const ID: &str = "4fa6e0f0c6786287e131c3852c58a2e01cc697a68231826813597e4994f1d6e2";

    fn json(running: bool, pid: i32, mode: &str) -> String {
        format!(
            r#"{{"Id":"{ID}","Name":"/web","State":{{"Status":"x","Running":{running},"Pid":{pid}}},"HostConfig":{{"NetworkMode":"{mode}"}}}}"#
        )
    }

    /// Asks an Engine that gives this answer, and returns the request line too.
    async fn with_engine(status: &str, body: &str, name: &str) -> (Result<Container, DockerError>, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let engine = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&request[..length]).lines().next().unwrap().to_string()
        });
        let result = inspect(&path, name).await;
        (result, engine.await.unwrap())
    }

    #[tokio::test]
    async fn finds_the_process_of_a_running_container() {
        let (found, request) = with_engine("200 OK", &json(true, 4711, "bridge"), "web").await;
        assert_eq!(found.unwrap(), Container { id: ID.into(), name: "web".into(), pid: 4711 });
        assert_eq!(request, "GET /containers/web/json HTTP/1.1");
    }

    #[tokio::test]
    async fn says_what_is_wrong_with_a_container() {
        let line = async |status, body: &str| with_engine(status, body, "web").await.0.unwrap_err().to_string();
        assert_eq!(line("404 Not Found", r#"{"message":"No such container: web"}"#).await, "web: no such container");
        assert_eq!(line("200 OK", &json(false, 0, "bridge")).await, "web: the container is not running");
        assert!(line("200 OK", &json(true, 4711, "host")).await.contains("--network host"));
        assert!(line("500 Internal Server Error", "broken").await.contains("500 Internal Server Error broken"));
        assert!(line("200 OK", "[]").await.contains("does not answer as it should"));
    }

    #[tokio::test]
    async fn an_endless_answer_is_cut_off() {
        let (found, _) = with_engine("200 OK", &"x".repeat(ANSWER_MAX + 1), "web").await;
        assert!(matches!(found, Err(DockerError::Odd { .. })));
    }

    #[tokio::test]
    async fn names_the_socket_where_nobody_listens() {
        let error = inspect(Path::new("/no/such/docker.sock"), "web").await.unwrap_err().to_string();
        assert!(error.starts_with("/no/such/docker.sock: no Docker Engine"), "{error}");
    }

    #[tokio::test]
    async fn asks_only_for_names_that_docker_gives() {
        for name in ["", "../x", "a b", "a\r\nb", "-a", "pid:7", "a/b", "é"] {
            assert!(matches!(inspect(Path::new("/"), name).await, Err(DockerError::NotAName(_))), "{name:?}");
        }
    }

    #[test]
    fn takes_the_socket_from_docker_host() {
        assert_eq!(socket(None).unwrap(), Path::new(DEFAULT_SOCKET));
        assert_eq!(socket(Some("")).unwrap(), Path::new(DEFAULT_SOCKET));
        assert_eq!(socket(Some("unix:///run/user/7/docker.sock")).unwrap(), Path::new("/run/user/7/docker.sock"));
        assert!(socket(Some("tcp://10.0.0.1:2375")).is_err());
    }
}
