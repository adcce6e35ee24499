//! The server of the control socket: two routes, each one question to the control task.
//!
//! Owns HTTP and JSON, no decision: a body becomes a `Command`, a `Reply` becomes a body. The socket is made with mode
//! 0600 in a directory that the caller has locked, so a file that is in the way belongs to a dead router and is removed.

use super::{REQUEST_MAX, SOCKET};
use crate::node::command::{Command, Reply};
use crate::run::Desk;
use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use nix::sys::stat::{Mode, fchmod};
use socket2::{Domain, SockAddr, Socket, Type};
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;

/// Binds the control socket in `run_dir`, readable and writable by its owner only.
pub fn bind(run_dir: &Path) -> io::Result<UnixListener> {
    let path = run_dir.join(SOCKET);
    match std::fs::remove_file(&path) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
        _ => {}
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    // Before the file exists (unix(7): it gets the socket's mode), so there is no moment in which others may connect.
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
    socket.bind(&SockAddr::unix(&path)?)?;
    socket.listen(128)?;
    Ok(OwnedFd::from(socket).into())
}

/// Serves until `end` is ready, then lets answers under way be finished. Must run on the runtime of the control task.
pub async fn serve(
    listener: UnixListener,
    desk: Desk,
    end: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let listener = tokio::net::UnixListener::from_std(listener)?;
    axum::serve(listener, router(desk)).with_graceful_shutdown(end).await
}

fn router(desk: Desk) -> Router {
    Router::new()
        .route("/status", get(status))
        .route("/command", post(command))
        .layer(DefaultBodyLimit::max(REQUEST_MAX))
        .with_state(desk)
}

async fn status(State(desk): State<Desk>) -> Response {
    match desk.ask(Command::Status).await {
        Some(Reply::Status(status)) => Json(status).into_response(),
        Some(_) => refused(StatusCode::INTERNAL_SERVER_ERROR, "status: the router gave another answer"),
        None => stopping(),
    }
}

async fn command(State(desk): State<Desk>, body: Result<Json<Command>, JsonRejection>) -> Response {
    let command = match body {
        Ok(Json(command)) => command,
        Err(why) => return refused(why.status(), &format!("command: {}", why.body_text())),
    };
    match desk.ask(command).await {
        Some(reply @ Reply::Refused(_)) => (StatusCode::CONFLICT, Json(reply)).into_response(),
        Some(reply) => Json(reply).into_response(),
        None => stopping(),
    }
}

fn refused(code: StatusCode, why: &str) -> Response {
    (code, Json(Reply::Refused(why.to_string()))).into_response()
}

fn stopping() -> Response {
    refused(StatusCode::SERVICE_UNAVAILABLE, "router: it is stopping")
}
