//! The thread that writes the state file.
//!
//! Control hands numbered states over and never waits for a disk. The newest wins: what was superseded before it was written
//! is not written at all. When one is synced, its number is told. A state that could not be stored is tried again each
//! second, or a newer one instead of it. Dropping the `Keeper` writes the last one and waits for it.

use crate::node::border::State;
use std::io;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long until a failed write is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Hands states to the thread.
#[derive(Debug)]
pub struct Keeper {
    states: Option<mpsc::Sender<(u64, State)>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts the thread; `save` writes a state and returns when it is synced, its error is one line for the log; `stored`
    /// hears the number of each state that is.
    pub fn start(
        save: impl Fn(&State) -> Result<(), String> + Send + 'static,
        stored: impl Fn(u64) + Send + 'static,
    ) -> io::Result<Keeper> {
        let (states, waiting) = mpsc::channel::<(u64, State)>();
        let thread = std::thread::Builder::new().name("rnet-store".to_string()).spawn(move || {
            while let Ok(first) = waiting.recv() {
                let mut newest = first;
                loop {
                    newest = waiting.try_iter().last().unwrap_or(newest);
                    match save(&newest.1) {
                        Ok(()) => break stored(newest.0),
                        Err(why) => tracing::error!("the state was not stored: {why}"),
                    }
                    match waiting.recv_timeout(AGAIN) {
                        Ok(newer) => newest = newer,
                        Err(RecvTimeoutError::Timeout) => {}
                        Err(RecvTimeoutError::Disconnected) => return,
                    }
                }
            }
        })?;
        Ok(Keeper { states: Some(states), thread: Some(thread) })
    }

    /// Stores this state soon, unless a newer one comes first.
    pub fn keep(&self, number: u64, state: State) {
        if let Some(states) = &self.states {
            let _ = states.send((number, state));
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
    fn the_last_state_is_written_and_told_before_the_keeper_is_gone() {
        let (written, told) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        let (seen, heard) = (Arc::clone(&written), Arc::clone(&told));
        let save = move |state: &State| {
            seen.lock().unwrap().push(state.version);
            Ok(())
        };
        let keeper = Keeper::start(save, move |number| heard.lock().unwrap().push(number)).unwrap();
        for version in 1..=50 {
            keeper.keep(u64::from(version), State { version, ..State::default() });
        }
        drop(keeper);
        let (written, told) = (written.lock().unwrap(), told.lock().unwrap());
        assert_eq!((written.last(), told.last()), (Some(&50), Some(&50)));
        assert!(written.is_sorted() && told.is_sorted() && written.len() == told.len());
    }

    #[test]
    fn what_could_not_be_stored_is_not_told_and_is_tried_again() {
        let tries = Arc::new(Mutex::new(0));
        let (told, heard) = mpsc::channel();
        let counted = Arc::clone(&tries);
        let save = move |_: &State| {
            let mut tries = counted.lock().unwrap();
            *tries += 1;
            if *tries == 1 { Err("disk full".to_string()) } else { Ok(()) }
        };
        let keeper = Keeper::start(save, move |number| told.send(number).unwrap()).unwrap();
        keeper.keep(7, State::default());
        assert_eq!(heard.recv_timeout(Duration::from_secs(20)), Ok(7));
        assert_eq!(*tries.lock().unwrap(), 2);
    }
}
