//! Where edges (the control socket, plugins) hand in questions for the control task.
//!
//! Bounded: a question waits until there is room, so that an edge that asks too fast slows down itself only. An edge that
//! goes away before it has its answer takes its question back: nothing waits in the router for nobody.

use crate::node::border::RequestId;
use crate::node::command::{Command, Reply};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{mpsc, oneshot};

/// Questions that may wait for the control task.
const WAITING_MAX: usize = 64;

/// What an edge hands in.
#[derive(Debug)]
pub enum Question {
    /// A command, and where its answer goes.
    Asked(RequestId, Command, oneshot::Sender<Reply>),
    /// Whoever asked this is gone.
    Withdrawn(RequestId),
}

/// Asks the control task. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Desk {
    questions: mpsc::Sender<Question>,
    last: Arc<AtomicU64>,
    guard: bool,
}

/// Takes the question back when it is dropped before the answer came.
struct Ticket {
    request: RequestId,
    questions: Option<mpsc::Sender<Question>>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let Some(questions) = self.questions.take() else { return };
        let withdrawn = Question::Withdrawn(self.request);
        // Only where there is no room a task has to wait for it; without a runtime the router is ending.
        if let Err(mpsc::error::TrySendError::Full(withdrawn)) = questions.try_send(withdrawn)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move { questions.send(withdrawn).await });
        }
    }
}

impl Desk {
    /// A desk and the end that the control task reads. Without `guard` every attachment is asked for as unguarded.
    pub fn new(guard: bool) -> (Desk, mpsc::Receiver<Question>) {
        let (questions, asked) = mpsc::channel(WAITING_MAX);
        (Desk { questions, last: Arc::default(), guard }, asked)
    }

    /// Asks and waits for the answer; nothing if the router ends first.
    pub async fn ask(&self, mut command: Command) -> Option<Reply> {
        if let Command::Attach(attach) = &mut command {
            attach.unguarded |= !self.guard;
        }
        let request = RequestId(self.last.fetch_add(1, Ordering::Relaxed) + 1);
        let (answer, answered) = oneshot::channel();
        self.questions.send(Question::Asked(request, command, answer)).await.ok()?;
        let mut ticket = Ticket { request, questions: Some(self.questions.clone()) };
        let reply = answered.await.ok();
        ticket.questions = None;
        reply
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_goes_away_takes_the_question_back_and_who_was_answered_does_not() {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
            let (desk, mut asked) = Desk::new(true);
            let patient = desk.clone();
            let patient = tokio::spawn(async move { patient.ask(Command::Status).await });
            let Some(Question::Asked(first, _, answer)) = asked.recv().await else { panic!() };
            answer.send(Reply::Done).unwrap();
            assert_eq!(patient.await.unwrap(), Some(Reply::Done));
            let hasty = tokio::spawn(async move { desk.ask(Command::Prime).await });
            let Some(Question::Asked(second, _, _unanswered)) = asked.recv().await else { panic!() };
            assert_ne!(first, second);
            hasty.abort();
            let Some(Question::Withdrawn(withdrawn)) = asked.recv().await else { panic!() };
            assert_eq!(withdrawn, second);
        });
    }
}
