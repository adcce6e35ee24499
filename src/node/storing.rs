//! What must be on the disk before somebody may hear of it.
//!
//! Each state that goes to the driver has a number, and the driver says which one is stored: power may fail at any moment
//! after that and nothing that was promised is forgotten. Two kinds of promises wait for it: what the address allocator
//! says after it changed its state (`addresses`), and the answer that something is attached.
//!
//! ```text
//! change -> Persist 7 ----------------> disk
//!           answers that need 7 wait    Persisted 7 -> answers
//! ```
//! A disk that fails holds everything that depends on it and is told in `status`; links and traffic do not depend on it.

use super::Node;
use super::border::{Output, RequestId, State};
use super::command::Reply;
use crate::types::Instant;
use std::collections::VecDeque;

/// Layout of [`State`].
pub const STATE_VERSION: u32 = 2;

/// See the head of this file.
#[derive(Default)]
pub(super) struct Storing {
    /// Number of the newest state that was given to the driver, and of the newest that is stored.
    asked: u64,
    done: u64,
    /// Something has to be stored though the state looks as it did.
    forced: bool,
    replies: VecDeque<(u64, RequestId, Reply)>,
    since: Option<Instant>,
}

impl Storing {
    /// The number of the state that will have everything as it is now. The next settling gives it to the driver.
    pub fn next(&mut self) -> u64 {
        self.forced = true;
        self.asked + 1
    }

    /// Whether that state is stored.
    pub fn has(&self, number: u64) -> bool {
        number <= self.done
    }

    /// Since when the disk is waited for.
    pub fn waiting_since(&self) -> Option<Instant> {
        self.since
    }
}

impl Node {
    /// What must survive a restart.
    fn state(&self) -> State {
        let mut attachments = self.attachments.list();
        attachments.extend(self.jobs.unrestored().cloned());
        let nicknames = self.addresses.nicknames.clone();
        let targets = self.dialer.given().cloned().collect();
        let vteps = self.attachments.vteps.list();
        let uplinks = self.uplinks_to_keep();
        let width = self.width.remembered();
        State { version: STATE_VERSION, targets, attachments, vteps, uplinks, width, nicknames, ipam: None }
    }

    /// Gives the state to the driver if it changed.
    pub(super) fn save(&mut self) {
        let unsaved = std::mem::take(&mut self.unsaved);
        // What is taken off because the router ends comes back when it starts again.
        if (self.stopping && !self.halting) || !(unsaved || self.storing.forced) {
            return;
        }
        let state = self.state();
        if state == self.saved && !self.storing.forced {
            // Whoever waits for the next one has what it needs in the last one.
            let Storing { asked, replies, .. } = &mut self.storing;
            replies.iter_mut().for_each(|(number, ..)| *number = (*number).min(*asked));
            return self.answer_stored();
        }
        self.storing.forced = false;
        self.storing.asked += 1;
        self.storing.since.get_or_insert(self.now);
        self.saved = state.clone();
        let state = State { ipam: self.addresses.stored.clone(), ..state };
        self.out.push_back(Output::Persist { number: self.storing.asked, state });
    }

    /// The driver has stored a state, and so all before it.
    pub(super) fn persisted(&mut self, number: u64) {
        let storing = &mut self.storing;
        storing.done = storing.done.max(number.min(storing.asked));
        storing.since = (storing.done < storing.asked).then_some(self.now);
        self.answer_stored();
        self.release_stored();
    }

    /// Answers an edge once everything as it is now is stored.
    pub(super) fn reply_when_stored(&mut self, request: RequestId, reply: Reply) {
        let changed = self.unsaved || self.storing.forced;
        let number = self.storing.asked + u64::from(changed);
        self.storing.replies.push_back((number, request, reply));
        self.answer_stored();
    }

    fn answer_stored(&mut self) {
        while self.storing.replies.front().is_some_and(|(number, ..)| *number <= self.storing.done) {
            if let Some((_, request, reply)) = self.storing.replies.pop_front() {
                self.out.push_back(Output::Reply { request, reply });
            }
        }
    }
}
