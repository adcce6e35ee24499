//! The thread that writes the state file.
//!
//! Control hands states over and never waits for a disk. The newest wins: what was superseded before it was written is not
//! written at all. Dropping the `Keeper` writes the last one and waits for it.

use crate::node::border::State;
use std::io;
use std::sync::mpsc;
use std::thread::JoinHandle;

/// Hands states to the thread.
#[derive(Debug)]
pub struct Keeper {
    states: Option<mpsc::Sender<State>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts the thread; `save` writes a state, its error is one line for the log.
    pub fn start(save: impl Fn(&State) -> Result<(), String> + Send + 'static) -> io::Result<Keeper> {
        let (states, waiting) = mpsc::channel::<State>();
        let thread = std::thread::Builder::new().name("rnet-store".to_string()).spawn(move || {
            while let Ok(first) = waiting.recv() {
                let newest = waiting.try_iter().last().unwrap_or(first);
                if let Err(why) = save(&newest) {
                    tracing::error!("the state was not stored: {why}");
                }
            }
        })?;
        Ok(Keeper { states: Some(states), thread: Some(thread) })
    }

    /// Stores this state soon, unless a newer one comes first.
    pub fn keep(&self, state: State) {
        if let Some(states) = &self.states {
            let _ = states.send(state);
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.states = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[test]
    fn the_last_state_is_written_before_the_keeper_is_gone() {
        let written = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&written);
        let keeper = Keeper::start(move |state: &State| {
            seen.lock().unwrap().push(state.version);
            if state.version == 1 { Err("disk full".to_string()) } else { Ok(()) }
        });
        let keeper = keeper.unwrap();
        for version in 1..=50 {
            keeper.keep(State { version, ..State::default() });
        }
        drop(keeper);
        let written = written.lock().unwrap();
        assert_eq!(written.last(), Some(&50));
        assert!(written.is_sorted());
    }
}
