//! The lab: the real binary on real kernel objects, in namespaces of this machine.
//!
//! Each test builds a room of its own and everything in it dies with the room (see `room.rs`), so tests run at the same
//! time and a crash leaves nothing. A host is a network, mount and UTS namespace; hosts are joined in pairs, by a veth
//! and nothing else, so that who has no line between them cannot reach each other without the mesh:
//!
//! ```text
//!        room: pid namespace (and a user namespace without root)
//!   +--------------+  10.200.1.0/24  +--------------+  10.200.2.0/24  +--------------+
//!   | host a       |.1 ----------- .2| host b       |.1 ----------- .2| host c       |      a - c: no way but rnet
//!   |  rnet launch |  veth  to-b to-a|  rnet launch |                 |  rnet launch |
//!   |  rnet run .. |                 |              |                 |  rnet run .. |
//!   +--------------+                 +--------------+                 +--------------+
//! ```
//!
//! Needs `unshare`, `nsenter`, `setpriv`, `ip`, `tc`, `nft`, `ping`, `curl`, `script`, `ethtool`, `hostname` and `python3`; root, or
//! a kernel that lets users have namespaces. Where it cannot run it says `skipped: <why>` and every test counts as ignored, never
//! as passed; with `RNET_LAB_REQUIRE=1` that is a failure. The same holds for a test that needs more (`needs.rs`: a TAP, a kernel
//! that can be made to look older, Open vSwitch), except that Open vSwitch is optional. Tests named `limit_*` measure: they have
//! the machine to themselves, and run only in a release build (`./dev bench`).

// The lab waits for the outside world: it needs the clock, threads and files that pure code is denied.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::panic)]

mod addresses;
mod allocation;
mod attach;
mod carriers;
mod containers;
mod datapath;
mod demo;
mod edge;
mod failover;
mod fairness;
mod framings;
mod hostile;
mod inside;
mod integrity;
mod isolation;
mod kernel;
mod lacking;
mod lan;
mod launch;
mod leftovers;
mod limits;
mod needs;
mod neighbours;
mod quality;
mod reach;
mod refusals;
mod room;
mod scenario;
mod segment;
mod trouble;
mod uplinks;
mod vteps;
mod wait;
mod widths;

use libtest_mimic::{Arguments, Trial};
use std::process::ExitCode;

/// Makes trials of functions, named after their module and themselves; `name if NEED`: what it needs beyond a room.
macro_rules! facts {
    ($($name:ident $(if $need:ident)?),* $(,)?) => {
        pub fn facts() -> Vec<libtest_mimic::Trial> {
            let module = module_path!().rsplit("::").next().unwrap_or_default();
            vec![$(crate::needs::trial(format!("{module}::{}", stringify!($name)), &[$(&crate::needs::$need)?], $name)),*]
        }
    };
}
pub(crate) use facts;

/// Starts over with default signals where some are ignored, as under nohup(1) or in the background of a script: what is ignored
/// at the start no shell can trap, and the programs of these tests trap signals.
fn signals_as_in_a_terminal() {
    const DONE: &str = "RNET_TEST_SIGNALS";
    if std::env::var_os(DONE).is_none() {
        let again = std::env::current_exe().unwrap();
        let mut env = std::process::Command::new("env");
        env.arg("--default-signal").arg(format!("{DONE}=default")).arg(again).args(std::env::args_os().skip(1));
        eprintln!("env: {}", std::os::unix::process::CommandExt::exec(&mut env));
        std::process::exit(1);
    }
}

fn main() -> ExitCode {
    signals_as_in_a_terminal();
    let mut arguments = Arguments::from_args();
    // They wait for most of their time.
    arguments.test_threads = arguments
        .test_threads
        .or_else(|| std::thread::available_parallelism().ok().map(|cores| 2 * usize::from(cores)));
    let trials: Vec<Trial> = [
        scenario::facts(),
        launch::facts(),
        refusals::facts(),
        addresses::facts(),
        allocation::facts(),
        containers::facts(),
        attach::facts(),
        edge::facts(),
        isolation::facts(),
        kernel::facts(),
        failover::facts(),
        lacking::facts(),
        hostile::facts(),
        inside::facts(),
        neighbours::facts(),
        widths::facts(),
        integrity::facts(),
        datapath::facts(),
        quality::facts(),
        reach::facts(),
        trouble::facts(),
        leftovers::facts(),
        demo::facts(),
        vteps::facts(),
        framings::facts(),
        uplinks::facts(),
        fairness::facts(),
        limits::facts(),
    ]
    .into_iter()
    .flatten()
    .collect();
    let trials = match &*needs::ROOMS {
        _ if arguments.list => trials,
        Ok(()) => trials,
        Err(why) if needs::required() => {
            eprintln!("the lab is required (RNET_LAB_REQUIRE=1) and cannot run: {why}");
            return ExitCode::FAILURE;
        }
        Err(why) => {
            eprintln!("skipped: the lab cannot run here: {why}");
            trials.into_iter().map(|trial| trial.with_ignored_flag(true)).collect()
        }
    };
    libtest_mimic::run(&arguments, trials).exit_code()
}
