use super::*;
use crate::config::OPTIONS;
use clap::CommandFactory;

fn parse(line: &str) -> Result<Command, clap::error::ErrorKind> {
    Cli::try_parse_from(line.split(' ')).map(|cli| cli.command).map_err(|error| error.kind())
}

#[test]
fn definitions_are_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn launch_has_every_option_of_the_configuration_and_tells_its_variable() {
    let mut cli = Cli::command();
    cli.build();
    let launch = cli.find_subcommand("launch").unwrap();
    for spec in OPTIONS {
        let id = spec.name.replace('-', "_");
        let argument = launch.get_arguments().find(|a| a.get_id().as_str() == id);
        let help = argument.unwrap_or_else(|| panic!("{} is missing", spec.name)).get_help().unwrap().to_string();
        assert!(help.contains(&format!("[env: {}]", spec.env)), "{}: {help}", spec.name);
    }
}

#[test]
fn every_command_tells_what_it_does() {
    for command in Cli::command().get_subcommands() {
        assert!(command.get_about().is_some(), "{}", command.get_name());
    }
}

#[test]
fn every_command_with_options_has_an_example_that_parses() {
    let mut cli = Cli::command();
    cli.build();
    let mut due: Vec<clap::Command> = cli.get_subcommands().cloned().collect();
    let mut seen = 0;
    while let Some(command) = due.pop() {
        due.extend(command.get_subcommands().cloned());
        let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let needs = command.get_name() != "help" && command.get_arguments().any(|argument| argument.is_positional());
        assert!(!needs || text.starts_with("Example"), "{} has no example", command.get_name());
        for line in text.lines().filter_map(|line| line.strip_prefix("  rnet ")) {
            let line = line.split("      ").next().unwrap_or(line).split([';', '|', '&', '>']).next().unwrap_or(line);
            let words = line.split("   ").next().unwrap_or(line).replace('\'', "");
            let parsed = Cli::try_parse_from(["rnet"].into_iter().chain(words.split_whitespace()));
            assert!(parsed.is_ok(), "{words}: {:?}", parsed.err().map(|error| error.kind()));
            seen += 1;
        }
    }
    assert!(seen > 40, "{seen}");
}

#[test]
fn the_examples_of_launch_show_the_options_that_need_one() {
    let mut cli = Cli::command();
    let text = cli.find_subcommand_mut("launch").unwrap().get_after_help().unwrap().to_string();
    let shown =
        ["framing", "trusted-subnets", "capture", "interface", "advertise", "interface-filter", "threads", "config"];
    for option in shown {
        assert!(text.contains(&format!("--{option} ")), "{option}: {text}");
    }
}

#[test]
fn run_keeps_the_options_of_the_command_that_it_runs() {
    for line in ["rnet run --cidr 10.2.1.1/24 -- ping -c3 --name x", "rnet run --cidr 10.2.1.1/24 ping -c3 --name x"] {
        let Ok(Command::Run(run)) = parse(line) else { panic!("{line}") };
        assert_eq!((run.cidr.len(), run.name.as_deref()), (1, None));
        assert_eq!(run.command, ["ping", "-c3", "--name", "x"]);
    }
    assert!(matches!(parse("rnet run --cdir 10.2.1.1/24 ping"), Err(clap::error::ErrorKind::UnknownArgument)));
    assert!(matches!(parse("rnet run"), Err(clap::error::ErrorKind::MissingRequiredArgument)));
}

#[test]
fn router_options_stand_before_or_after_the_command() {
    for line in ["rnet --run-dir /r status peers", "rnet status --run-dir /r peers"] {
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        assert_eq!(cli.router.run_dir.as_deref(), Some("/r"));
        assert!(matches!(cli.command, Command::Status(Status { view: Some(View::Peers), json: false })));
    }
}

#[test]
fn attach_takes_addresses_before_the_target() {
    let Ok(Command::Attach(attach)) = parse("rnet attach 10.2.1.1/24 fd00::1/64 pid:7 --no-guard") else { panic!() };
    assert_eq!((attach.words.len(), attach.no_guard), (3, true));
    assert!(parse("rnet attach").is_err());
}
