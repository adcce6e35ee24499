//! `rnet run`: a command on the mesh before it begins.
//!
//! ```text
//! CMD exists? (127) -> addresses valid? -> sandbox waits in its namespaces -> router attaches it -> go -> exit status
//!                                              '-- killed if the router refuses --'          afterwards: detach
//! ```
//!
//! The router sees by itself when the process is gone, so a `rnet run` that is killed leaves nothing either; detaching
//! afterwards only makes the addresses free at once.

use super::args::{Router, Run};
use super::{Failure, ask};
use crate::host::sandbox::{self, Sandbox};
use crate::node::command::{Attach, Command, Place};

/// The command; answers the exit status of what was run.
pub fn run(router: &Router, options: &Run) -> Result<u8, Failure> {
    let refused = |failure: sandbox::Failure| {
        let code = u8::try_from(failure.status).unwrap_or(1);
        Failure { code, ..Failure::new("run", failure.line) }
    };
    let first = options.command.first().ok_or_else(|| Failure::usage("run", "no command is given"))?;
    sandbox::find(first).map_err(refused)?;
    let addresses = ask::addresses("run", &requested(options))?;
    let client = ask::client("run", router)?;
    // A router that is not there is told before a namespace is made.
    if !addresses.is_empty() {
        ask::wait("run", client.status())?.map_err(|why| ask::trouble("run", &why))?;
    }
    let sandbox = Sandbox::spawn(&options.command, None).map_err(|failure| Failure { code: 1, ..refused(failure) })?;
    let key = format!("pid:{}", sandbox.pid());
    if !addresses.is_empty() {
        let place = Place::Pid(sandbox.pid());
        let (name, unguarded) = (options.name.clone(), options.no_guard);
        let attach = Attach { key: key.clone(), name, place, addresses: addresses.clone(), unguarded, vni: None };
        ask::wait("run", client.ask(Command::Attach(attach)))?.map_err(|why| ask::trouble("run", &why))?;
    }
    let status = sandbox.go().map_err(refused);
    if !addresses.is_empty() {
        // Gone already if the router saw the process end first.
        let _ = ask::wait("run", client.ask(Command::Detach { key, addresses: Vec::new() }));
    }
    Ok(u8::try_from(status?).unwrap_or(1))
}

/// The addresses asked for: by option, else by environment.
fn requested(options: &Run) -> Vec<String> {
    if !options.cidr.is_empty() {
        return options.cidr.clone();
    }
    let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.trim().is_empty());
    variable("RNET_CIDR").or_else(|| variable("WEAVE_CIDR")).into_iter().collect()
}
