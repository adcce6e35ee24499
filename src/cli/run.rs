//! `rnet run`: a command on the mesh before it begins.
//!
//! ```text
//! CMD exists? (127) -> addresses valid? -> sandbox waits in its namespaces -> router attaches it -> go -> exit status
//!                                              '-- killed if the router refuses --'          afterwards: detach
//! ```
//!
//! With --network none or host, or in the namespace of another (--join), nothing is attached and nothing ends with it but itself.
//!
//! The router sees by itself when the process is gone, so a `rnet run` that is killed leaves nothing either; detaching
//! afterwards only makes the addresses free at once.

use super::args::{Net, Router, Run};
use super::{Failure, ask};
use crate::host::sandbox::{self, Network, Sandbox};
use crate::io::netns::Netns;
use crate::ipam::WaitingStatus;
use crate::node::command::{Attach, Command, Place};

/// The command; answers the exit status of what was run.
pub fn run(router: &Router, options: &Run) -> Result<u8, Failure> {
    let refused = |failure: sandbox::Failure| {
        let code = u8::try_from(failure.status).unwrap_or(1);
        Failure { code, ..Failure::new("run", failure.line) }
    };
    let first = options.command.first().ok_or_else(|| Failure::usage("run", "no command is given"))?;
    sandbox::find(first).map_err(refused)?;
    check(options)?;
    if let Some(network) = without_mesh(router, options)? {
        let sandbox = Sandbox::spawn(&options.command, None, network);
        let sandbox = sandbox.map_err(|failure| Failure { code: 1, ..refused(failure) })?;
        return Ok(u8::try_from(sandbox.go().map_err(refused)?).unwrap_or(1));
    }
    let addresses = ask::addresses("run", &requested(options))?;
    if addresses.is_empty() && (options.gateway || !options.publish.is_empty()) {
        return Err(Failure::usage("run", "--gateway and --publish need an address: --cidr"));
    }
    let client = ask::client("run", router)?;
    // A router that is not there is told before a namespace is made.
    if !addresses.is_empty() {
        ask::wait("run", client.status())?.map_err(|why| ask::trouble("run", &why))?;
    }
    let sandbox = Sandbox::spawn(&options.command, None, Network::New);
    let sandbox = sandbox.map_err(|failure| Failure { code: 1, ..refused(failure) })?;
    let key = format!("pid:{}", sandbox.pid());
    if !addresses.is_empty() {
        let place = Place::Pid(sandbox.pid());
        let (name, unguarded) = (options.name.clone(), options.no_guard);
        let attach = Attach {
            key: key.clone(),
            name,
            place,
            addresses: addresses.clone(),
            unguarded,
            vni: None,
            gateway: options.gateway,
            masquerade: false,
            publish: options.publish.clone(),
        };
        let mine = |waiting: &WaitingStatus| waiting.key.as_ref() == Some(&key);
        let asked = ask::ask_patiently("run", &client, Command::Attach(attach), mine);
        ask::wait("run", asked)?.map_err(|why| ask::trouble("run", &why))?;
    }
    let status = sandbox.go().map_err(refused);
    if !addresses.is_empty() {
        // Gone already if the router saw the process end first.
        let _ = ask::wait("run", client.ask(Command::Detach { key, addresses: Vec::new() }));
    }
    Ok(u8::try_from(status?).unwrap_or(1))
}

/// What says nothing without the mesh is a mistake.
fn check(options: &Run) -> Result<(), Failure> {
    let given = [
        ("--cidr", !options.cidr.is_empty()),
        ("--publish", !options.publish.is_empty()),
        ("--gateway", options.gateway),
        ("--name", options.name.is_some()),
        ("--no-guard", options.no_guard),
    ];
    match given.into_iter().find(|(_, given)| *given) {
        Some((option, _)) if options.network != Net::Mesh => {
            Err(Failure::usage("run", format!("{option} is for the mesh, not for --network none or host")))
        }
        _ => Ok(()),
    }
}

/// The namespace that it runs in, if that is not a new one on the mesh.
fn without_mesh(router: &Router, options: &Run) -> Result<Option<Network>, Failure> {
    let Some(target) = &options.join else {
        return Ok(match options.network {
            Net::Mesh => None,
            Net::None => Some(Network::New),
            Net::Host => Some(Network::Same),
        });
    };
    let client = ask::client("run", router)?;
    let found = ask::wait("run", ask::find_here("run --join", &client, target))??;
    let namespace = match &found.place {
        Place::Pid(pid) | Place::Process { pid, .. } => Netns::of_process(*pid),
        Place::Path(path) => Netns::at(std::path::Path::new(path)),
        Place::Host => Netns::own(),
    };
    let failed = |why: std::io::Error| match why.kind() {
        std::io::ErrorKind::NotFound => Failure::new("run --join", format!("{target}: it has ended")),
        _ => Failure::new("run --join", format!("{target}: {why}")),
    };
    namespace.map(|namespace| Some(Network::Of(namespace))).map_err(failed)
}

/// The addresses asked for: by option, else by environment.
fn requested(options: &Run) -> Vec<String> {
    if !options.cidr.is_empty() {
        return options.cidr.clone();
    }
    let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.trim().is_empty());
    variable("RNET_CIDR").or_else(|| variable("WEAVE_CIDR")).into_iter().collect()
}
