//! The client of the control socket, for the command line and the plugins.
//!
//! One connection for each question; the router answers `Status` at once and any command when it is done. A router that
//! is not there is told from one that we may not ask: the two need different help.

use super::{ANSWER_MAX, SOCKET};
use crate::node::command::{Command, Reply};
use crate::node::status::Status;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use std::io;
use std::path::{Path, PathBuf};
use tokio::net::UnixStream;

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// No socket, or nobody behind it.
    #[error("the router is not running (no answer at {}); `rnet launch` starts it", .0.display())]
    NotRunning(PathBuf),
    /// The socket is not ours.
    #[error("no permission to use {}: run this as root", .0.display())]
    NoPermission(PathBuf),
    /// The router refused: its own line, `<what>: <why>`.
    #[error("{0}")]
    Refused(String),
    /// The answer makes no sense, or the connection broke.
    #[error("the router's answer failed: {0}")]
    Broken(String),
}

/// Where a router is asked.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// The router whose run directory this is.
    pub fn new(run_dir: &Path) -> Client {
        Client { socket: run_dir.join(SOCKET) }
    }

    /// The whole view.
    pub async fn status(&self) -> Result<Box<Status>, Trouble> {
        match self.ask(Command::Status).await? {
            Reply::Status(status) => Ok(status),
            other => Err(Trouble::Broken(format!("{other:?} is no status"))),
        }
    }

    /// Asks, and waits for the answer. `Reply::Refused` comes as [`Trouble::Refused`].
    pub async fn ask(&self, command: Command) -> Result<Reply, Trouble> {
        let broken = |why: &dyn std::fmt::Display| Trouble::Broken(why.to_string());
        let stream = UnixStream::connect(&self.socket).await.map_err(|why| self.unreachable(&why))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|why| broken(&why))?;
        let body = serde_json::to_vec(&command).map_err(|why| broken(&why))?;
        let request = Request::builder()
            .method(Method::POST)
            .uri("/command")
            .header(HOST, "rnet")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|why| broken(&why))?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(|why| broken(&why))?;
            Limited::new(response.into_body(), ANSWER_MAX).collect().await.map_err(|why| broken(&why))
        };
        // The connection must be driven while the answer is awaited; it ends by itself when the sender is dropped.
        let drive = async {
            let _ = connection.await;
            std::future::pending::<()>().await;
        };
        let body =
            tokio::select! { answer = exchange => answer?, () = drive => return Err(Trouble::Broken("closed".into())) };
        match serde_json::from_slice(&body.to_bytes()).map_err(|why| broken(&why))? {
            Reply::Refused(why) => Err(Trouble::Refused(why)),
            reply => Ok(reply),
        }
    }

    fn unreachable(&self, why: &io::Error) -> Trouble {
        match why.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Trouble::NotRunning(self.socket.clone()),
            io::ErrorKind::PermissionDenied => Trouble::NoPermission(self.socket.clone()),
            _ => Trouble::Broken(format!("{}: {why}", self.socket.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::http;
    use crate::run::{Desk, Question};
    use crate::types::Target;
    use std::os::unix::fs::PermissionsExt;

    fn on_runtime<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    fn connect(host: &str) -> Command {
        Command::Connect { targets: vec![host.parse::<Target>().unwrap()], replace: false }
    }

    #[test]
    fn question_and_answer_cross_the_socket() {
        on_runtime(async {
            let dir = tempfile::tempdir().unwrap();
            let listener = http::bind(dir.path()).unwrap();
            let mode = std::fs::metadata(dir.path().join(SOCKET)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            let (desk, mut asked) = Desk::new(true);
            let (end, ended) = tokio::sync::oneshot::channel::<()>();
            let server = tokio::spawn(http::serve(listener, desk, async { ended.await.unwrap_or_default() }));
            let client = Client::new(dir.path());
            let answers = async {
                assert!(matches!(client.ask(connect("host2")).await, Ok(Reply::Done)));
                assert!(matches!(client.ask(connect("host3")).await, Err(Trouble::Refused(why)) if why == "host3: no"));
            };
            let router = async {
                for reply in [Reply::Done, Reply::Refused("host3: no".into())] {
                    let Some(Question::Asked(_, _, answer)) = asked.recv().await else { panic!() };
                    answer.send(reply).unwrap();
                }
            };
            tokio::join!(answers, router);
            drop(asked);
            assert!(
                matches!(client.ask(connect("late")).await, Err(Trouble::Refused(why)) if why.contains("stopping"))
            );
            end.send(()).unwrap();
            server.await.unwrap().unwrap();
        });
    }

    #[test]
    fn a_client_that_goes_away_takes_its_question_back() {
        on_runtime(async {
            let dir = tempfile::tempdir().unwrap();
            let (desk, mut asked) = Desk::new(true);
            let listener = http::bind(dir.path()).unwrap();
            let server = tokio::spawn(http::serve(listener, desk, std::future::pending()));
            let client = Client::new(dir.path());
            let hasty = tokio::spawn(async move { client.ask(Command::Prime).await });
            let Some(Question::Asked(request, _, _unanswered)) = asked.recv().await else { panic!() };
            hasty.abort();
            let Some(Question::Withdrawn(withdrawn)) = asked.recv().await else { panic!() };
            assert_eq!(withdrawn, request);
            server.abort();
        });
    }

    #[test]
    fn refuses_a_body_that_is_no_command_or_too_long() {
        on_runtime(async {
            let dir = tempfile::tempdir().unwrap();
            let (desk, _asked) = Desk::new(true);
            let listener = http::bind(dir.path()).unwrap();
            let server = tokio::spawn(http::serve(listener, desk, std::future::pending()));
            let huge = Command::Connect { targets: vec!["host".parse().unwrap(); 200_000], replace: false };
            assert!(Client::new(dir.path()).ask(huge).await.is_err());
            server.abort();
        });
    }

    #[test]
    fn tells_a_missing_and_a_dead_router() {
        on_runtime(async {
            let dir = tempfile::tempdir().unwrap();
            let client = Client::new(dir.path());
            assert!(matches!(client.status().await, Err(Trouble::NotRunning(_))));
            drop(http::bind(dir.path()).unwrap());
            assert!(matches!(client.status().await, Err(Trouble::NotRunning(_))));
            assert!(http::bind(dir.path()).is_ok(), "a stale socket is replaced");
        });
    }
}
