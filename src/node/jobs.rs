//! Changes to this machine: one at a time, in the order asked for, undone when they fail.
//!
//! A job is planned when its turn comes (`attach`), so that it sees what the jobs before it did. Its operations go out one by
//! one; when one fails, those before it are undone in reverse, and only then the edge hears why. Taking things off is
//! tolerant: an operation that fails is logged, and the rest is done all the same.
//!
//! Bounds: `MAX_WAITING` requests wait; beyond that an edge is told to try again. Work that nobody asked for (what was
//! attached before, what died) waits without a limit of its own: there is at most one such job for each attachment.

use super::Node;
use super::attach::{self, Plan};
use super::border::{HostAnswer, HostId, HostOp, Level, Output, RequestId};
use super::command::{Attach, Attachment, Reply};
use crate::types::AddressRequest;
use std::collections::VecDeque;

/// Requests that may wait.
pub const MAX_WAITING: usize = 256;

/// What is to be done.
pub(super) enum Job {
    Attach { request: RequestId, attach: Attach },
    Restore { attachment: Attachment },
    Detach { request: RequestId, key: String, addresses: Vec<AddressRequest> },
    Gone { key: String },
    Stop,
}

/// Who is told when it is done, and what.
enum Then {
    /// The attachment as it is then.
    Attached(RequestId),
    Restored,
    /// What was taken off.
    Detached(RequestId, Attachment),
    Nobody,
    Stopped,
}

impl Then {
    /// A failed operation is undone, and the edge refused.
    fn is_strict(&self) -> bool {
        matches!(self, Then::Attached(_) | Then::Restored)
    }
}

/// A job between two operations.
struct Work {
    who: Attachment,
    steps: VecDeque<HostOp>,
    done: Vec<HostOp>,
    /// Why it is being undone.
    failure: Option<String>,
    then: Then,
}

/// A job, and the operation that the driver is at.
struct Running {
    host: HostId,
    op: HostOp,
    work: Work,
}

/// See the head of this file.
#[derive(Default)]
pub(super) struct Jobs {
    waiting: VecDeque<Job>,
    running: Option<Running>,
    next_host: u64,
    /// Who asked for the end.
    stoppers: Vec<RequestId>,
}

impl Jobs {
    /// Attachments of the last run that are not plugged yet.
    pub fn unrestored(&self) -> impl Iterator<Item = &Attachment> {
        self.waiting
            .iter()
            .filter_map(|job| if let Job::Restore { attachment } = job { Some(attachment) } else { None })
    }
}

impl Node {
    /// A request waits for its turn, or is refused at once.
    pub(super) fn ask(&mut self, request: RequestId, job: Job) {
        if self.jobs.waiting.len() >= MAX_WAITING {
            return self.refuse_request(request, "too many requests are waiting: try again in a moment".to_string());
        }
        self.jobs.waiting.push_back(job);
    }

    /// What was attached in the last run is plugged again.
    pub(super) fn restore(&mut self, attachments: Vec<Attachment>) {
        self.jobs.waiting.extend(attachments.into_iter().map(|attachment| Job::Restore { attachment }));
    }

    /// A namespace is gone, with what was in it.
    pub(super) fn attachment_gone(&mut self, key: String) {
        let queued = |job: &Job| matches!(job, Job::Gone { key: queued } if *queued == key);
        if !self.stopping && !self.jobs.waiting.iter().any(queued) {
            self.jobs.waiting.push_back(Job::Gone { key });
        }
    }

    /// The router is to end: what waits is refused, and everything is taken off the machine.
    pub(super) fn stop(&mut self, request: RequestId) {
        if self.jobs.stoppers.len() >= MAX_WAITING {
            return self.refuse_request(request, "the router is stopping".to_string());
        }
        self.jobs.stoppers.push(request);
        if std::mem::replace(&mut self.stopping, true) {
            return;
        }
        for job in std::mem::take(&mut self.jobs.waiting) {
            if let Job::Attach { request, .. } | Job::Detach { request, .. } = job {
                self.refuse_request(request, "the router is stopping".to_string());
            }
        }
        self.close_links();
        self.jobs.waiting.push_back(Job::Stop);
    }

    fn refuse_request(&mut self, request: RequestId, why: String) {
        self.out.push_back(Output::Reply { request, reply: Reply::Refused(why) });
    }

    /// Begins jobs until one has to wait for the machine.
    pub(super) fn next_job(&mut self) {
        while self.jobs.running.is_none() {
            let Some(job) = self.jobs.waiting.pop_front() else { return };
            self.begin(job);
        }
    }

    fn begin(&mut self, job: Job) {
        let (planned, then) = match job {
            Job::Attach { request, attach } => (self.plan_attach(&attach), Then::Attached(request)),
            Job::Restore { attachment } => (self.plan_restore(&attachment), Then::Restored),
            Job::Detach { request, key, addresses } => match self.plan_detach(&key, &addresses) {
                Ok((plan, taken)) => (Ok(plan), Then::Detached(request, taken)),
                Err(why) => return self.refuse_request(request, why),
            },
            Job::Gone { key } => (self.plan_detach(&key, &[]).map(|(plan, _)| plan), Then::Nobody),
            Job::Stop => (Ok(Plan { who: nobody(), steps: self.attachments.clear() }), Then::Stopped),
        };
        match planned {
            Ok(Plan { who, steps }) => {
                self.advance(Work { who, steps: steps.into(), done: Vec::new(), failure: None, then })
            }
            Err(why) => self.finish(&nobody(), Some(why), then),
        }
    }

    /// Goes on to the next operation, or to the end.
    fn advance(&mut self, mut work: Work) {
        let Some(op) = work.steps.pop_front() else { return self.finish(&work.who, work.failure, work.then) };
        self.attachments.begin(&op, &work.who);
        if let HostOp::CloseNetwork { id, .. } = op {
            self.plane.forget_network(id);
        }
        self.tables_changed();
        // What frames need is in the data plane before the first frame can come.
        self.publish();
        self.jobs.next_host += 1;
        let host = HostId(self.jobs.next_host);
        self.out.push_back(Output::Host { host, op: op.clone() });
        self.jobs.running = Some(Running { host, op, work });
    }

    fn tables_changed(&mut self) {
        self.refresh_record();
        self.refresh_claims();
    }

    /// The driver carried out an operation, or could not.
    pub(super) fn host_done(&mut self, host: HostId, result: Result<HostAnswer, String>) {
        let Some(running) = self.jobs.running.take_if(|running| running.host == host) else { return };
        let Running { op, mut work, .. } = running;
        match result {
            Ok(HostAnswer::Done) => {
                self.attachments.succeeded(&op);
                work.done.push(op);
            }
            Err(why) => {
                self.attachments.failed(&op);
                if work.then.is_strict() && work.failure.is_none() {
                    let mtu = self.config.mtu;
                    work.steps = work.done.drain(..).rev().filter_map(|op| attach::undo(&op, mtu)).collect();
                    work.failure = Some(why);
                } else {
                    self.log(Level::Warn, format!("{} could not be taken off this machine: {why}", what(&op)));
                }
            }
        }
        self.tables_changed();
        self.advance(work);
    }

    fn finish(&mut self, who: &Attachment, failure: Option<String>, then: Then) {
        match (then, failure) {
            (Then::Attached(request), Some(why)) => self.refuse_request(request, why),
            (Then::Attached(request), None) => {
                let attachment = self.attachments.get(&who.key).unwrap_or(who).clone();
                self.out.push_back(Output::Reply { request, reply: Reply::Attached(attachment) });
            }
            (Then::Restored, Some(why)) => {
                self.unsaved = true;
                self.log(
                    Level::Warn,
                    format!("{} is not attached again: {why}", who.name.as_ref().unwrap_or(&who.key)),
                );
            }
            (Then::Detached(request, taken), _) => {
                self.out.push_back(Output::Reply { request, reply: Reply::Attached(taken) });
            }
            (Then::Stopped, _) => {
                let stoppers = std::mem::take(&mut self.jobs.stoppers).into_iter();
                self.out.extend(stoppers.map(|request| Output::Reply { request, reply: Reply::Done }));
                self.out.push_back(Output::Stopped);
            }
            (Then::Restored, None) | (Then::Nobody, _) => {}
        }
    }
}

fn nobody() -> Attachment {
    let place = super::command::Place::Pid(0);
    Attachment { key: String::new(), name: None, place, interfaces: Vec::new(), unguarded: false }
}

fn what(op: &HostOp) -> String {
    match op {
        HostOp::OpenNetwork { network, .. } => format!("network {network}"),
        HostOp::CloseNetwork { id, .. } => format!("network {id}"),
        HostOp::Plug { key, .. } | HostOp::Unplug { key, .. } => key.clone(),
    }
}
