//! What edges ask, and who answers: targets here, attachments, exposures and ports in `jobs`, the view in `view`.

use super::Node;
use super::border::{Output, RequestId};
use super::command::{Command, HOST_KEY, Place, Reply};
use super::expose::exposure;
use super::jobs::{Change, Job};
use crate::mesh::dialer::MAX_GIVEN;
use crate::types::{AddressRequest, Target};

/// Names in one line at most.
const NAMED: usize = 10;

/// Done, since there was nothing of that name; `there` are those that there are.
pub(super) fn nothing_of(what: &str, is: &str, there: &[String]) -> Reply {
    let named: Vec<&str> = there.iter().take(NAMED).map(String::as_str).collect();
    let all = match there.len() {
        0 => "nothing is".to_string(),
        count if count > NAMED => format!("{} and {} more are", named.join(", "), count - NAMED),
        1 => format!("{} is", named.join(", ")),
        _ => format!("{} are", named.join(", ")),
    };
    Reply::Told(vec![format!("{what}: nothing of that name is {is}; {all}")])
}

impl Node {
    /// An edge asks; it is answered exactly once.
    pub(super) fn command(&mut self, request: RequestId, command: Command) {
        let reply = match command {
            Command::Status => Reply::Status(Box::new(self.status())),
            // Answered when everything is given up.
            Command::Stop => return self.stop(request, false),
            Command::Halt => return self.stop(request, true),
            _ if self.stopping => Reply::Refused("the router is stopping".to_string()),
            Command::Connect { targets, replace } => self.connect(targets, replace),
            Command::Forget { targets } => {
                let given = |node: &Node| node.dialer.given().map(Target::to_string).collect::<Vec<String>>();
                let unknown: Vec<String> = targets
                    .iter()
                    .filter(|target| {
                        let was_given = self.dialer.forget(target);
                        self.unsaved |= was_given;
                        !was_given
                    })
                    .map(Target::to_string)
                    .collect();
                match unknown.as_slice() {
                    [] => Reply::Done,
                    _ => nothing_of(&format!("forget {}", unknown.join(" ")), "given as a peer to dial", &given(self)),
                }
            }
            Command::Attach(attach) if attach.key == HOST_KEY || attach.place == Place::Host => {
                Reply::Refused(format!("attach {}: that is the host itself: use `rnet expose`", attach.key))
            }
            Command::Leave => return self.leave(request),
            Command::Attach(_) | Command::Expose { .. } | Command::Join(_) | Command::Bridge(_) if self.leaving => {
                Reply::Refused("the router is leaving the mesh".to_string())
            }
            Command::Join(vtep) => return self.join(request, vtep),
            Command::Part { address, network } => return self.part(request, address, network),
            Command::Bridge(uplink) => return self.ask(request, Job::Bridge { request: Some(request), uplink }),
            Command::Unbridge { interface } => return self.ask(request, Job::Unbridge { request, interface }),
            Command::Attach(attach) => return self.attach(request, attach),
            Command::Expose { addresses, masquerade } => {
                return self.attach(request, exposure(addresses, masquerade));
            }
            Command::Detach { key, addresses } => return self.detach(request, key, addresses),
            Command::Hide { addresses } => return self.detach(request, HOST_KEY.to_string(), addresses),
            Command::Publish { key, ports } => {
                return self.ask(request, Job::Ports { request, key, change: Change::Publish(ports) });
            }
            Command::Unpublish { key, ports } => {
                return self.ask(request, Job::Ports { request, key, change: Change::Unpublish(ports) });
            }
            Command::Prime => return self.prime(request),
            Command::Rmpeer { peers } => return self.rmpeer(request, &peers),
        };
        self.out.push_back(Output::Reply { request, reply });
    }

    fn detach(&mut self, request: RequestId, key: String, addresses: Vec<AddressRequest>) {
        if addresses.is_empty() {
            self.give_up_waiting(Some(&key), &format!("attach {key}: it was detached"));
        }
        self.ask(request, Job::Detach { request, key, addresses });
    }

    fn connect(&mut self, targets: Vec<Target>, replace: bool) -> Reply {
        if replace {
            let old: Vec<Target> = self.dialer.given().filter(|target| !targets.contains(target)).cloned().collect();
            old.iter().for_each(|target| {
                self.dialer.forget(target);
            });
        }
        self.unsaved = true;
        for target in targets {
            if !self.dialer.give(target.clone(), self.now) {
                return Reply::Refused(format!(
                    "connect {target}: there are {MAX_GIVEN} targets already: forget some first"
                ));
            }
        }
        Reply::Done
    }
}
