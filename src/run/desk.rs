//! Where edges (the control socket, plugins) hand in questions for the control task.
//!
//! Bounded: a question waits until there is room, so that an edge that asks too fast slows down itself only.

use crate::node::command::{Command, Reply};
use tokio::sync::{mpsc, oneshot};

/// Questions that may wait for the control task.
const WAITING_MAX: usize = 64;

/// A question, and where its answer goes.
pub type Question = (Command, oneshot::Sender<Reply>);

/// Asks the control task. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Desk {
    questions: mpsc::Sender<Question>,
    guard: bool,
}

impl Desk {
    /// A desk and the end that the control task reads. Without `guard` every attachment is asked for as unguarded.
    pub fn new(guard: bool) -> (Desk, mpsc::Receiver<Question>) {
        let (questions, asked) = mpsc::channel(WAITING_MAX);
        (Desk { questions, guard }, asked)
    }

    /// Asks and waits for the answer; nothing if the router ends first.
    pub async fn ask(&self, mut command: Command) -> Option<Reply> {
        if let Command::Attach(attach) = &mut command {
            attach.unguarded |= !self.guard;
        }
        let (answer, answered) = oneshot::channel();
        self.questions.send((command, answer)).await.ok()?;
        answered.await.ok()
    }
}
