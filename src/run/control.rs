//! The control task: the one owner of `Node`.
//!
//! ```text
//! questions (API)  ---.                              .--> links: dial, send, close
//! happenings (tasks) -+--> handle one, poll until ---+--> machine: bridges, attachments
//! probes (data path) -+    Wait                      +--> UDP socket: probes; data path: announcements
//! deadline (node) ----'                              '--> answers, state file, log
//! ```
//!
//! Carries out what the node wants and decides nothing. Control never waits for a task that waits for control: all that
//! it gives away goes into memory that is bounded elsewhere or into sockets that do not block.

use super::datapath::Hands;
use super::journal;
use super::keeper::Keeper;
use super::links::Links;
use super::{Happening, Question};
use crate::host::Beats;
use crate::io::alarm::Alarm;
use crate::io::clock::Clock;
use crate::io::sources::Sources;
use crate::io::udp::UdpSocket;
use crate::node::Node;
use crate::node::border::{HostId, HostOp, Input, LinkId, Output, RequestId};
use crate::node::command::{Command, Reply};
use crate::plane::Event;
use crate::types::Instant;
use crate::wire::beat;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// What control owns besides the node.
pub struct Outlets {
    /// TCP.
    pub links: Links,
    /// Probes leave here.
    pub socket: Arc<UdpSocket>,
    /// Probes come in here.
    pub receivers: Vec<Arc<UdpSocket>>,
    /// Which of this host's addresses the data path sends from.
    pub sources: Arc<Sources>,
    /// Frames for bridges leave here.
    pub hands: Hands,
    /// Heartbeats leave here, while the kernel's VXLAN is open.
    pub beats: Beats,
    /// Changes to the machine, in order.
    pub machine: mpsc::UnboundedSender<(HostId, HostOp)>,
    /// The state file.
    pub keeper: Keeper,
}

/// Where inputs come from.
pub struct Inlets {
    /// Of edges.
    pub questions: mpsc::Receiver<Question>,
    /// Of the tasks around control.
    pub happenings: mpsc::Receiver<Happening>,
    /// Of the data path.
    pub events: mpsc::Receiver<Event>,
    /// Of time.
    pub alarm: Alarm,
}

/// Asks without an edge: `Desk` numbers from 1.
const NOBODY: RequestId = RequestId(0);

/// See the head of this file.
pub struct Control {
    node: Node,
    clock: Clock,
    outlets: Outlets,
    answers: HashMap<RequestId, oneshot::Sender<Reply>>,
    /// What carrying out brought about; handled before anything else.
    own: VecDeque<Happening>,
    /// Why the node was told to stop, if nobody wished that.
    failed: Option<String>,
}

/// How a round of polling ended.
enum Rest {
    Until(Option<Instant>),
    Stopped { kept: bool },
}

impl Control {
    /// Owns `node` from now on.
    pub fn new(node: Node, clock: Clock, outlets: Outlets) -> Control {
        Control { node, clock, outlets, answers: HashMap::new(), own: VecDeque::new(), failed: None }
    }

    /// Runs until the node has stopped: whether everything on the machine is left to the next router. An error: one line why it
    /// had to.
    pub async fn run(mut self, mut inlets: Inlets) -> Result<bool, String> {
        loop {
            let deadline = match self.carry_out() {
                Rest::Until(deadline) => deadline,
                Rest::Stopped { kept } => return self.failed.map_or(Ok(kept), Err),
            };
            if let Some(happening) = self.own.pop_front() {
                self.happened(happening);
                continue;
            }
            tokio::select! {
                Some(question) = inlets.questions.recv() => self.asked(question),
                Some(happening) = inlets.happenings.recv() => self.happened(happening),
                Some(event) = inlets.events.recv() => self.handle(Input::Plane(event)),
                due = inlets.alarm.due(deadline, self.clock.now()) => match due {
                    Ok(()) => self.handle(Input::Tick),
                    Err(why) => return Err(format!("control: the timer: {why}")),
                },
            }
        }
    }

    fn handle(&mut self, input: Input<'_>) {
        self.node.handle(input, self.clock.now());
    }

    fn asked(&mut self, question: Question) {
        match question {
            Question::Asked(request, command, answer) => {
                self.answers.insert(request, answer);
                self.handle(Input::Command { request, command });
            }
            Question::Withdrawn(request) => {
                // Answered a moment before its edge went away: nothing is left to take back.
                if self.answers.remove(&request).is_some() {
                    self.handle(Input::Withdrawn { request });
                }
            }
        }
    }

    fn happened(&mut self, happening: Happening) {
        match happening {
            Happening::Connected { stream, remote, dial } => match self.outlets.links.take(stream) {
                Some((link, local)) => self.handle(Input::LinkUp { link, dial, remote, local }),
                None => {
                    if let Some(dial) = dial {
                        self.handle(Input::DialFailed { dial, why: "too many connections are open".to_string() });
                    }
                }
            },
            Happening::DialFailed(dial, why) => self.handle(Input::DialFailed { dial, why }),
            Happening::Bytes(link, bytes) if self.outlets.links.is_open(link) => {
                self.handle(Input::LinkBytes { link, bytes: &bytes });
            }
            Happening::Drained(link) if self.outlets.links.is_open(link) => self.handle(Input::LinkDrained { link }),
            // Told late of a link that was closed meanwhile.
            Happening::Bytes(..) | Happening::Drained(_) => {}
            Happening::Down(link, why) => {
                if self.outlets.links.drop_link(link) {
                    self.handle(Input::LinkDown { link, why });
                }
            }
            Happening::Machine(host, result) => self.handle(Input::HostDone { host, result }),
            Happening::Gone(key) => self.handle(Input::AttachmentGone { key }),
            Happening::CaptureGone(port) => self.handle(Input::CaptureGone { port }),
            Happening::NetworkChanged => self.handle(Input::NetworkChanged),
            Happening::Uplink(port, state) => self.handle(Input::Uplink { port, state }),
            Happening::Addresses(all) => self.handle(Input::Addresses(all)),
            Happening::Event(event) => self.handle(Input::Plane(event)),
            Happening::OffloadLost(id) => self.handle(Input::OffloadLost { id }),
            Happening::VxlanGone => self.handle(Input::VxlanGone),
            Happening::RouteMtu(port, mtu) => self.handle(Input::RouteMtu { port, mtu }),
            Happening::Slow(link) => {
                self.handle(Input::LinkDown { link, why: "the other side reads too slowly".to_string() })
            }
            Happening::Stored(number) => self.handle(Input::Persisted { number }),
            Happening::DatapathEnded(why) => {
                self.failed.get_or_insert(why);
                self.handle(Input::Command { request: NOBODY, command: Command::Stop });
            }
            Happening::Signal => self.handle(Input::Command { request: NOBODY, command: Command::Stop }),
        }
    }

    /// Polls the node until it waits or has stopped.
    fn carry_out(&mut self) -> Rest {
        loop {
            match self.node.poll(self.clock.now()) {
                Output::Wait(deadline) => return Rest::Until(deadline),
                Output::Stopped { kept } => return Rest::Stopped { kept },
                Output::Dial { dial, target, default_port } => self.outlets.links.dial(dial, target, default_port),
                Output::Send { link, bytes } => self.send(link, bytes),
                Output::Close { link } => self.outlets.links.close(link),
                Output::Datagram { from, to, bytes } => {
                    // A probe that cannot leave is a lost probe: the prober draws the conclusion.
                    let _ = self.outlets.socket.send_from(from, to, &bytes);
                }
                Output::Locate(on) => self.locate(on),
                Output::Sources(all) => self.outlets.sources.set(all),
                Output::Beat { peer, to, body } => {
                    let frame = beat::frame(self.node.name(), peer, &body);
                    if !self.outlets.beats.send(to, &frame) {
                        self.outlets.hands.beat(to, frame);
                    }
                }
                Output::Deliver { port, frame } => self.outlets.hands.deliver(port, frame),
                Output::Announce { network, frame } => self.outlets.hands.announce(network, frame),
                Output::Host { host, op } => {
                    if self.outlets.machine.send((host, op)).is_err() {
                        let result = Err("the task that changes this machine has ended".to_string());
                        self.own.push_back(Happening::Machine(host, result));
                    }
                }
                Output::Reply { request, reply } => {
                    if let Some(answer) = self.answers.remove(&request) {
                        // Whoever asked may be gone.
                        let _ = answer.send(reply);
                    }
                }
                Output::Persist { number, state } => self.outlets.keeper.keep(number, state),
                Output::Log { level, line } => journal::line(level, &line),
            }
        }
    }

    fn locate(&self, on: bool) {
        for socket in &self.outlets.receivers {
            if let Err(why) = socket.locate(on) {
                tracing::warn!("which address datagrams come to is not told: {why}");
            }
        }
    }

    fn send(&mut self, link: LinkId, bytes: Vec<u8>) {
        if !self.outlets.links.send(link, bytes) {
            self.own.push_back(Happening::Slow(link));
        }
    }
}
