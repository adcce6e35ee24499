//! Changes to this machine: one at a time, in the order asked for, undone when they fail.
//!
//! A job is planned when its turn comes (`attach`), so that it sees what the jobs before it did. Its operations go out one by
//! one; when one fails, those before it are undone in reverse, and only then the edge hears why. Taking things off is
//! tolerant: an operation that fails is logged, and the rest is done all the same.
//!
//! Bounds: `MAX_WAITING` requests wait; beyond that an edge is told to try again. Work that nobody asked for (what was
//! attached before, what died) waits without a limit of its own: there is at most one such job for each attachment and port.

use super::Node;
use super::attach::{self, Plan};
use super::border::{HostAnswer, HostId, HostOp, Level, Output, RequestId};
use super::command::{Attach, Attachment, HOST_KEY, Place, Reply, Uplink, Vtep};
use super::framings;
use crate::plane::fib::PortId;
use crate::types::{AddressRequest, InterfaceName, Network, PortMap, VtepAddress};
use std::collections::VecDeque;

/// Requests that may wait.
pub const MAX_WAITING: usize = 256;

/// What is to be done.
pub(super) enum Job {
    Attach {
        request: RequestId,
        attach: Attach,
    },
    Restore {
        attachment: Attachment,
    },
    Detach {
        request: RequestId,
        key: String,
        addresses: Vec<AddressRequest>,
    },
    Ports {
        request: RequestId,
        key: String,
        change: Change,
    },
    /// Of an edge, or again after it failed.
    Join {
        request: Option<RequestId>,
        vtep: Vtep,
    },
    Part {
        request: RequestId,
        address: VtepAddress,
        network: Option<Network>,
    },
    /// Of an edge, or again after it failed.
    Bridge {
        request: Option<RequestId>,
        uplink: Uplink,
    },
    Unbridge {
        request: RequestId,
        interface: InterfaceName,
    },
    Gone {
        key: String,
    },
    /// All that is there gets the MTU in use.
    Resize,
    /// The device of a network's capture port is gone.
    Recapture {
        port: PortId,
    },
    /// All that was attached in the last run is back, or cannot be.
    SweepRest,
    Leave {
        request: RequestId,
    },
    Stop {
        keep: bool,
    },
}

impl Job {
    /// Whether it puts this attachment on.
    fn attaches(&self, key: &str) -> bool {
        match self {
            Job::Attach { attach, .. } => attach.key == key,
            Job::Restore { attachment } => attachment.key == key,
            Job::Detach { .. } | Job::Ports { .. } | Job::Gone { .. } | Job::Recapture { .. } => false,
            Job::Join { .. } | Job::Part { .. } | Job::Bridge { .. } | Job::Unbridge { .. } => false,
            Job::Resize | Job::SweepRest | Job::Leave { .. } | Job::Stop { .. } => false,
        }
    }
}

/// A change of the ports that lead to an attachment.
pub(super) enum Change {
    Publish(Vec<PortMap>),
    Unpublish(Vec<PortMap>),
}

/// Who is told when it is done, and what.
enum Then {
    /// The attachment as it is then.
    Attached(RequestId),
    Restored,
    /// What was taken off.
    Detached(RequestId, Attachment),
    /// The attachment with its ports; it had these before.
    Ports(RequestId, Vec<PortMap>),
    Joined(Option<RequestId>, Vtep),
    Bridged(Option<RequestId>, Uplink),
    /// Answered with this, known from the start.
    Done(RequestId, Reply),
    Nobody,
    Left(RequestId),
    Stopped {
        kept: bool,
    },
}

impl Then {
    /// Whether the job is undone when this operation of it fails, and the edge refused.
    fn is_strict(&self, op: &HostOp) -> bool {
        match self {
            Then::Attached(_) | Then::Ports(..) | Then::Joined(..) | Then::Bridged(..) => true,
            // What was on the mesh stays on it, whatever the packet filter says.
            Then::Restored => !matches!(op, HostOp::Filter(_)),
            Then::Detached(..) | Then::Done(..) | Then::Nobody | Then::Left(_) | Then::Stopped { .. } => false,
        }
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
    /// What a killed router left may still be there.
    unswept: bool,
    /// Who asked for the end.
    stoppers: Vec<RequestId>,
}

impl Jobs {
    /// Whether something is being, or is to be, put on under `key`.
    pub fn is_attaching(&self, key: &str) -> bool {
        let strict = |then: &Then| matches!(then, Then::Attached(_) | Then::Restored);
        let running = |running: &Running| strict(&running.work.then) && running.work.who.key == key;
        self.waiting.iter().any(|job| job.attaches(key)) || self.running.as_ref().is_some_and(running)
    }

    /// A VTEP is to be joined that nobody asked for just now; once is enough.
    pub fn join_later(&mut self, vtep: Vtep) {
        let same = |job: &Job| matches!(job, Job::Join { request: None, vtep: other } if *other == vtep);
        if !self.waiting.iter().any(same) {
            self.waiting.push_back(Job::Join { request: None, vtep });
        }
    }

    /// The same for an interface.
    pub fn bridge_later(&mut self, uplink: Uplink) {
        let same = |job: &Job| matches!(job, Job::Bridge { request: None, uplink: other } if *other == uplink);
        if !self.waiting.iter().any(same) {
            self.waiting.push_back(Job::Bridge { request: None, uplink });
        }
    }

    /// A number for a change to this machine.
    pub fn number(&mut self) -> HostId {
        self.next_host += 1;
        HostId(self.next_host)
    }

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
    pub(super) fn restore(&mut self, mut attachments: Vec<Attachment>) {
        // The host first: ports that lead to the others need its addresses.
        attachments.sort_by_key(|attachment| attachment.key != HOST_KEY);
        self.jobs.unswept = !attachments.is_empty();
        let sweep = self.jobs.unswept.then_some(Job::SweepRest);
        self.jobs.waiting.extend(attachments.into_iter().map(|attachment| Job::Restore { attachment }).chain(sweep));
    }

    /// A namespace is gone, with what was in it.
    pub(super) fn attachment_gone(&mut self, key: String) {
        let queued = |job: &Job| matches!(job, Job::Gone { key: queued } if *queued == key);
        self.give_up_waiting(Some(&key), &format!("attach {key}: it is gone"));
        if !self.stopping && !self.jobs.waiting.iter().any(queued) {
            self.jobs.waiting.push_back(Job::Gone { key });
        }
    }

    /// What is there gets another MTU.
    pub(super) fn resize(&mut self) {
        let waits = self.jobs.waiting.iter().any(|job| matches!(job, Job::Resize));
        if !self.stopping && !waits && !self.attachments.is_empty() {
            self.jobs.waiting.push_back(Job::Resize);
        }
    }

    /// Somebody deleted the device that a network is captured on.
    pub(super) fn capture_gone(&mut self, port: PortId) {
        let Some((_, network)) = self.attachments.network_of(port).filter(|_| !self.stopping) else { return };
        self.log(Level::Warn, format!("network {network}: its device was deleted by somebody else: it is made again"));
        self.jobs.waiting.push_back(Job::Recapture { port });
    }

    /// The router is to end: what waits is refused. Then everything is taken off the machine, or kept there for the next one; the
    /// neighbours are then told nothing, so that they keep what is theirs of it.
    pub(super) fn stop(&mut self, request: RequestId, keep: bool) {
        if self.jobs.stoppers.len() >= MAX_WAITING {
            return self.refuse_request(request, "the router is stopping".to_string());
        }
        self.jobs.stoppers.push(request);
        if std::mem::replace(&mut self.stopping, true) {
            return;
        }
        for job in std::mem::take(&mut self.jobs.waiting) {
            if let Job::Attach { request, .. }
            | Job::Detach { request, .. }
            | Job::Ports { request, .. }
            | Job::Join { request: Some(request), .. }
            | Job::Bridge { request: Some(request), .. }
            | Job::Unbridge { request, .. }
            | Job::Part { request, .. } = job
            {
                self.refuse_request(request, "the router is stopping".to_string());
            }
        }
        self.give_up_waiting(None, "the router is stopping");
        self.halting = keep;
        if !keep {
            self.close_links();
        }
        self.jobs.waiting.push_back(Job::Stop { keep });
    }

    /// Everything is taken off for good, then the addresses are given to the other peers.
    pub(super) fn leave(&mut self, request: RequestId) {
        self.leaving = true;
        self.attachments.vteps.forget_wanted();
        self.attachments.uplinks.forget_wanted();
        self.give_up_waiting(None, "the router is leaving the mesh");
        for job in std::mem::take(&mut self.jobs.waiting) {
            match job {
                Job::Attach { request, .. }
                | Job::Join { request: Some(request), .. }
                | Job::Bridge { request: Some(request), .. } => {
                    self.refuse_request(request, "the router is leaving the mesh".to_string())
                }
                Job::Restore { .. } | Job::Join { request: None, .. } | Job::Bridge { request: None, .. } => {}
                other => self.jobs.waiting.push_back(other),
            }
        }
        self.jobs.waiting.push_back(Job::Leave { request });
    }

    pub(super) fn refuse_request(&mut self, request: RequestId, why: String) {
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
        let (key, planned, then) = match job {
            Job::Attach { request, attach } => (attach.key.clone(), self.plan_attach(&attach), Then::Attached(request)),
            Job::Restore { attachment } => (attachment.key.clone(), self.plan_restore(&attachment), Then::Restored),
            Job::Detach { request, key, addresses } => {
                let (plan, taken) = self.plan_detach(&key, &addresses);
                self.warn_hidden(&taken);
                (key, Ok(plan), Then::Detached(request, taken))
            }
            Job::Ports { request, key, change } => match self.plan_ports(&key, &change) {
                Ok((plan, before)) => (key, Ok(plan), Then::Ports(request, before)),
                Err(why) => return self.refuse_request(request, why),
            },
            // Forgotten while it waited.
            Job::Join { request: None, vtep } if !self.attachments.vteps.is_wanted(&vtep) => return,
            Job::Join { request, vtep } => (String::new(), self.plan_join(&vtep), Then::Joined(request, vtep)),
            Job::Part { request, address, network } => match self.plan_part(address, network) {
                Ok((plan, reply)) => (String::new(), Ok(plan), Then::Done(request, reply)),
                Err(why) => return self.refuse_request(request, format!("forget {address}: {why}")),
            },
            Job::Bridge { request: None, uplink } if !self.attachments.uplinks.is_wanted(&uplink) => return,
            Job::Bridge { request, uplink } => {
                let plan = self.plan_bridge(&uplink, request.is_some());
                (String::new(), plan, Then::Bridged(request, uplink))
            }
            Job::Unbridge { request, interface } => {
                let (plan, reply) = self.plan_unbridge(&interface);
                (String::new(), Ok(plan), Then::Done(request, reply))
            }
            Job::Gone { key } => {
                let plan = self.plan_detach(&key, &[]).0;
                (key, Ok(plan), Then::Nobody)
            }
            Job::Resize => {
                let steps = self.attachments.resize(self.width.in_use());
                (String::new(), Ok(Plan { who: nobody(), steps }), Then::Nobody)
            }
            Job::Recapture { port } => {
                let steps = self.plan_recapture(port).into_iter().collect();
                (String::new(), Ok(Plan { who: nobody(), steps }), Then::Nobody)
            }
            Job::SweepRest => (String::new(), Ok(Plan { who: nobody(), steps: vec![HostOp::SweepRest] }), Then::Nobody),
            Job::Leave { request } => {
                (String::new(), Ok(Plan { who: nobody(), steps: self.attachments.clear() }), Then::Left(request))
            }
            Job::Stop { keep: true } => {
                (String::new(), Ok(Plan { who: nobody(), steps: Vec::new() }), Then::Stopped { kept: true })
            }
            Job::Stop { keep: false } => {
                self.holding.clear();
                let rest = self.jobs.unswept.then_some(HostOp::SweepRest);
                let steps = self.framings.clear().into_iter().chain(self.attachments.clear()).chain(rest).collect();
                (String::new(), Ok(Plan { who: nobody(), steps }), Then::Stopped { kept: false })
            }
        };
        match planned {
            Ok(Plan { who, steps }) => {
                self.advance(Work { who, steps: steps.into(), done: Vec::new(), failure: None, then })
            }
            Err(why) => self.finish(&Attachment { key, ..nobody() }, Some(why), then),
        }
    }

    /// Goes on to the next operation, or to the end.
    fn advance(&mut self, mut work: Work) {
        let next = work.steps.pop_front().or_else(|| self.filter_due().map(HostOp::Filter));
        let Some(op) = next else { return self.finish(&work.who, work.failure, work.then) };
        self.filter_begins(&op);
        self.jobs.unswept &= op != HostOp::SweepRest;
        self.attachments.begin(&op, &work.who);
        if let HostOp::CloseNetwork { id, .. } = op {
            self.close_offload(id);
            self.plane.forget_network(id);
        }
        let closed = match op {
            HostOp::CloseTunnel { port, .. } | HostOp::CloseUplink { port, .. } => Some(port),
            HostOp::Recapture { gone: port, .. } => Some(port),
            _ => None,
        };
        self.tables_changed();
        // What frames need is in the data plane before the first frame can come.
        self.publish();
        if let Some(port) = closed {
            self.plane.forget_port(port);
            self.loops.close(port.0);
        }
        if let HostOp::CloseTunnel { vtep, .. } = op {
            self.loops.close(vtep.number());
        }
        let host = self.jobs.number();
        self.out.push_back(Output::Host { host, op: op.clone() });
        self.jobs.running = Some(Running { host, op, work });
    }

    fn tables_changed(&mut self) {
        self.refresh_record();
        self.refresh_claims();
    }

    /// The driver carried out an operation, or could not.
    pub(super) fn host_done(&mut self, host: HostId, result: Result<HostAnswer, String>) {
        let result = match self.changed_beside(host, result) {
            Ok(()) => return,
            Err(result) => result,
        };
        let Some(running) = self.jobs.running.take_if(|running| running.host == host) else { return };
        let Running { op, mut work, .. } = running;
        match result {
            Ok(answer) => {
                if let HostAnswer::Plugged(place) = answer {
                    self.attachments.settled(&work.who.key, &place);
                }
                self.attachments.succeeded(&op);
                work.done.push(op);
            }
            Err(why) => {
                self.attachments.failed(&op);
                if work.then.is_strict(&op) && work.failure.is_none() {
                    if let Then::Ports(_, before) = &work.then {
                        self.set_ports(&work.who.key, before.clone());
                    }
                    let (mtu, guarded) = (self.width.in_use(), !work.who.unguarded);
                    work.steps = work.done.drain(..).rev().filter_map(|op| attach::undo(&op, mtu, guarded)).collect();
                    work.failure = Some(why);
                } else {
                    self.log(Level::Warn, format!("{}: {why}", what(&op)));
                }
            }
        }
        self.tables_changed();
        self.advance(work);
    }

    fn finish(&mut self, who: &Attachment, failure: Option<String>, then: Then) {
        match (then, failure) {
            (Then::Attached(request) | Then::Ports(request, _), Some(why)) => self.refuse_request(request, why),
            (Then::Attached(request) | Then::Ports(request, _), None) => {
                let attachment = self.attachments.get(&who.key).unwrap_or(who).clone();
                self.reply_when_stored(request, Reply::Attached(attachment));
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
            (Then::Joined(request, vtep), failure) => self.joined(request, &vtep, failure),
            (Then::Bridged(request, uplink), failure) => self.bridged(request, &uplink, failure),
            (Then::Done(request, reply), _) => self.reply_when_stored(request, reply),
            (Then::Left(request), _) => {
                self.unsaved = true;
                self.retire(request);
            }
            (Then::Stopped { kept }, _) => {
                // What the last job changed is stored before the driver ends.
                self.save();
                let stoppers = std::mem::take(&mut self.jobs.stoppers).into_iter();
                self.out.extend(stoppers.map(|request| Output::Reply { request, reply: Reply::Done }));
                self.out.push_back(Output::Stopped { kept });
            }
            (Then::Restored, None) | (Then::Nobody, _) => {}
        }
        self.reconcile(&who.key);
    }
}

/// Of whom nothing is attached.
pub(super) fn nobody() -> Attachment {
    let (interfaces, published) = (Vec::new(), Vec::new());
    Attachment { key: String::new(), name: None, place: Place::Pid(0), interfaces, unguarded: false, published }
}

fn what(op: &HostOp) -> String {
    match op {
        HostOp::OpenNetwork { network, .. } => format!("network {network} could not be opened"),
        HostOp::Recapture { id, .. } => format!("the device of network {id} could not be made again"),
        HostOp::CloseNetwork { id, .. } => format!("network {id} could not be taken off this machine"),
        HostOp::Plug { key, .. } => format!("{key} could not be put back"),
        HostOp::Unplug { key, .. } => format!("{key} could not be taken off this machine"),
        HostOp::OpenTunnel { vtep, .. } => format!("{} could not be joined", vtep.address),
        HostOp::CloseTunnel { vtep, .. } => format!("{} could not be taken off", vtep.address),
        HostOp::OpenUplink { uplink, .. } => format!("{} could not be captured", uplink.interface),
        HostOp::CloseUplink { uplink, .. } => format!("{} could not be given up", uplink.interface),
        HostOp::ResizeNetwork { network, mtu, .. } => format!("network {network} does not get an MTU of {mtu}"),
        HostOp::Resize { key, mtu, .. } => format!("{key} does not get an MTU of {mtu}"),
        HostOp::Filter(_) => "the packet filter could not be set".to_string(),
        HostOp::SweepRest => "what a killed router left could not be removed".to_string(),
        op => framings::what(op),
    }
}
