//! The last word of a thread that the router cannot do without: why it ended, also if it panicked.

/// See the head of this file. Dropped without [`Farewell::say`] it tells of a panic.
pub(super) struct Farewell<F: Fn(String)> {
    who: String,
    tell: Option<F>,
}

impl<F: Fn(String)> Farewell<F> {
    /// `tell` hears in one line why `who` ended.
    pub fn new(who: String, tell: F) -> Farewell<F> {
        Farewell { who, tell: Some(tell) }
    }

    /// An end that was ordered needs no word.
    pub fn say(mut self, result: Result<(), String>) {
        let tell = self.tell.take();
        if let (Some(tell), Err(why)) = (tell, result) {
            tell(format!("{}: {why}", self.who));
        }
    }
}

impl<F: Fn(String)> Drop for Farewell<F> {
    fn drop(&mut self) {
        if let Some(tell) = self.tell.take() {
            tell(format!("{}: it panicked", self.who));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_panic_is_told_an_error_too_and_an_ordered_end_is_not() {
        let (tell, told) = mpsc::channel();
        let thread = |work: fn() -> Result<(), String>| {
            let tell = tell.clone();
            let farewell = Farewell::new("thread".to_string(), move |why| tell.send(why).unwrap());
            let _ = std::thread::spawn(move || farewell.say(work())).join();
        };
        thread(|| panic!("as it was to"));
        thread(|| Err("no more".to_string()));
        thread(|| Ok(()));
        drop(tell);
        assert_eq!(told.iter().collect::<Vec<_>>(), ["thread: it panicked", "thread: no more"]);
    }
}
