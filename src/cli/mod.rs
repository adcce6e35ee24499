//! The command line: subcommands and what they print.
//!
//! ```text
//! args       definitions: help, completion and man pages are made of them
//! sources    arguments, environment and file as layers of options; passwords from files and terminals
//! launch     the composition root: puts the router together and runs it, here or in the background
//! ask        commands that ask a running router: attach, detach, ps, status, report
//! targets    what it connects to: connect, forget          bridge     interfaces of this host: bridge add, bridge del
//! edge       the way in and out: expose, hide, publish, unpublish
//! demo       three hosts on one machine, shown and removed
//! end        stop and reset                 run    a command in a namespace of its own
//! print      standard output; no line is lost in a panic when a reader goes away
//! ```
//!
//! Errors go to standard error as `rnet: <what>: <why>`; the exit status is 0, 1, or 2 for wrong usage. What a command
//! may do is the router's decision, except for what is not built yet.

#![allow(clippy::disallowed_methods)] // the rim: environment and files are read here

pub mod args;
mod ask;
mod bridge;
mod demo;
mod edge;
mod end;
mod launch;
mod print;
mod run;
mod secret;
mod sources;
mod targets;

use args::{Cli, Command, View};
use clap::{CommandFactory, Parser};
use std::process::ExitCode;

/// Why a command failed: what is printed, and the exit status.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    /// Lines without `rnet: `, each `<what>: <why>`.
    pub lines: Vec<String>,
    /// 1 failed, 2 wrong usage; others are a contained command's own.
    pub code: u8,
}

impl Failure {
    /// `what` did not work.
    pub fn new(what: &str, why: impl std::fmt::Display) -> Failure {
        Failure { lines: vec![format!("{what}: {why}")], code: 1 }
    }

    /// `what` was written wrongly.
    pub fn usage(what: &str, why: impl std::fmt::Display) -> Failure {
        Failure { code: 2, ..Failure::new(what, why) }
    }
}

/// The program: arguments to subcommand, error to exit status.
pub fn main() -> ExitCode {
    // First of all, while there is one thread and no copy of the environment: see `secret`.
    let password = secret::take_from_environment();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version come this way too; clap knows which stream and status belong to each.
        Err(error) => {
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            let text = error.render();
            let text = if print::colour(error.use_stderr()) { text.ansi().to_string() } else { text.to_string() };
            if error.use_stderr() {
                print::error_text(&text)
            } else {
                print::out(&text)
            }
            return ExitCode::from(code);
        }
    };
    match dispatch(cli, password) {
        Ok(0) if print::is_lost() => ExitCode::from(1),
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            failure.lines.iter().for_each(|line| print::error(line));
            ExitCode::from(failure.code)
        }
    }
}

fn dispatch(cli: Cli, password: Option<secret::Text>) -> Result<u8, Failure> {
    let Cli { router, command } = cli;
    match command {
        Command::Launch(launch) => launch::launch(&router, *launch, password)?,
        Command::Stop(options) => end::stop(&router, &options)?,
        Command::Reset(reset) => end::reset(&router, reset.force)?,
        Command::Connect(connect) => targets::connect(&router, &connect)?,
        Command::Forget(forget) => targets::forget(&router, &forget)?,
        Command::Bridge(options) => bridge::bridge(&router, &options)?,
        Command::Run(options) if options.docker => {
            return Err(later("run --docker", "running containers through Docker"));
        }
        Command::Run(options) => return run::run(&router, &options),
        Command::Attach(attach) => ask::attach(&router, &attach)?,
        Command::Detach(detach) => ask::detach(&router, &detach)?,
        Command::Expose(options) => edge::expose(&router, &options)?,
        Command::Hide(options) => edge::hide(&router, &options)?,
        Command::Publish(ports) => edge::publish(&router, &ports)?,
        Command::Unpublish(ports) => edge::unpublish(&router, &ports)?,
        Command::Ps(ps) => ask::ps(&router, &ps)?,
        Command::Status(status) => match status.view {
            Some(View::Dns) => return Err(later("status dns", "answering for names")),
            _ => ask::status(&router, &status)?,
        },
        Command::Report => ask::report(&router)?,
        Command::Rmpeer(peers) => ask::rmpeer(&router, &peers)?,
        Command::Prime => ask::prime(&router)?,
        Command::Demo(options) => demo::demo(&options.words)?,
        Command::Version => ask::version(&router)?,
        Command::Completions(completions) => {
            let mut script = Vec::new();
            clap_complete::generate(completions.shell, &mut Cli::command(), "rnet", &mut script);
            print::out(&String::from_utf8_lossy(&script));
        }
        Command::Man(man) => manual(man.command.as_deref())?,
    }
    Ok(0)
}

/// The answer of what is not built yet.
fn later(what: &str, which: &str) -> Failure {
    Failure::new(what, format!("not built yet: {which} comes with a later version of rnet"))
}

fn manual(command: Option<&str>) -> Result<(), Failure> {
    let mut definition = Cli::command();
    definition.build();
    let page = match command {
        None => definition,
        Some(name) => {
            // Built with its parent, so that its page is named as man(1) looks it up: rnet-launch.
            let found = definition.find_subcommand(name).cloned();
            found.ok_or_else(|| Failure::usage("man", format!("{name:?} is not a command of rnet")))?
        }
    };
    let mut text = Vec::new();
    clap_mangen::Man::new(page).render(&mut text).map_err(|why| Failure::new("man", why))?;
    print::out(&String::from_utf8_lossy(&text));
    Ok(())
}
