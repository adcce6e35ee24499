//! Arguments, environment and file as the layers that `config` resolves.
//!
//! Nothing is judged here but the file's form (TOML with texts, numbers, truths and lists of them); whether an option
//! exists and what it may be is `config`'s. Passwords are read from files, standard input and terminals here.

use super::args::{Launch, Router};
use super::secret::Text;
use super::{Failure, print};
use crate::config::{Ambient, Config, Fault, Form, Layer, OPTIONS, Origin};
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
use std::io::{IsTerminal, Read};
use std::path::PathBuf;

/// Longest file that an option names, bytes: an allow list of thousands of keys.
const FILE_MAX: u64 = 4 << 20;

/// The configuration of `launch`. All faults of it come as one usage failure.
pub fn config(router: &Router, launch: &Launch, password: Option<Text>) -> Result<Config, Failure> {
    let layers = layers("launch", router, Some(launch), password)?;
    let hostname = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Config::resolve(&layers, &Ambient { hostname: &hostname, read: &read }).map_err(|faults| failure("launch", &faults))
}

/// Run and data directory of the router that is meant.
pub fn directories(what: &str, router: &Router) -> Result<(PathBuf, PathBuf), Failure> {
    let mut layers = layers(what, router, None, None)?;
    for layer in &mut layers {
        layer.values.retain(|name, _| name == "run-dir" || name == "data-dir");
    }
    let nothing = |_: &str| Err(String::new());
    let config = Config::resolve(&layers, &Ambient { hostname: "", read: &nothing });
    let config = config.map_err(|faults| failure(what, &faults))?;
    Ok((config.run_dir, config.data_dir))
}

fn failure(what: &str, faults: &[Fault]) -> Failure {
    Failure { lines: faults.iter().map(|fault| format!("{what}: {fault}")).collect(), code: 2 }
}

fn layers(what: &str, router: &Router, launch: Option<&Launch>, password: Option<Text>) -> Result<Vec<Layer>, Failure> {
    let arguments = arguments(router, launch);
    let mut environment = Layer::new(Origin::Environment);
    for spec in OPTIONS.iter().filter(|spec| spec.name != "password") {
        // An empty variable is one that is not set, as everywhere.
        if let Some(text) = std::env::var(spec.env).ok().filter(|text| !text.is_empty()) {
            environment.add(spec.name, text);
        }
    }
    if let Some(password) = password {
        environment.add("password", password.as_str().to_string());
    }
    let path = [&arguments, &environment].iter().find_map(|layer| layer.values.get("config")?.first().cloned());
    let mut layers = vec![arguments, environment];
    if let Some(path) = path {
        let text = read(&path).map_err(|why| Failure::usage(what, format!("--config: {why}")))?;
        layers.push(file(&path, &text).map_err(|why| Failure::usage(what, format!("{path}: {why}")))?);
    }
    Ok(layers)
}

fn arguments(router: &Router, launch: Option<&Launch>) -> Layer {
    let mut layer = Layer::new(Origin::CommandLine);
    let mut add = |name: &str, value: &Option<String>| {
        if let Some(text) = value {
            layer.add(name, text.clone());
        }
    };
    add("run-dir", &router.run_dir);
    add("data-dir", &router.data_dir);
    add("config", &router.config);
    let Some(launch) = launch else { return layer };
    add("port", &launch.port);
    add("host", &launch.host);
    add("nickname", &launch.nickname);
    add("password", &launch.password);
    add("password-file", &launch.password_file);
    add("allow-file", &launch.allow_file);
    add("ipalloc-default-subnet", &launch.ipalloc_default_subnet);
    add("ipalloc-init", &launch.ipalloc_init);
    add("ipalloc-reclaim", &launch.ipalloc_reclaim);
    add("conn-limit", &launch.conn_limit);
    add("interface-filter", &launch.interface_filter);
    add("mtu", &launch.mtu);
    add("framing", &launch.framing);
    add("capture", &launch.capture);
    add("offload", &launch.offload);
    add("threads", &launch.threads);
    add("log-level", &launch.log_level);
    let flags = [
        ("no-discovery", launch.no_discovery),
        ("no-guard", launch.no_guard),
        ("pin-threads", launch.pin_threads),
        ("foreground", launch.foreground),
        ("resume", launch.resume),
    ];
    for (name, _) in flags.into_iter().filter(|(_, on)| *on) {
        layer.add(name, "true".to_string());
    }
    let lists = [
        ("peers", &launch.peers),
        ("allow", &launch.allow),
        ("advertise", &launch.advertise),
        ("ipalloc-range", &launch.ipalloc_range),
        ("interface", &launch.interface),
        ("trusted-subnets", &launch.trusted_subnets),
    ];
    for (name, texts) in lists {
        texts.iter().for_each(|text| layer.add(name, text.clone()));
    }
    layer
}

/// The layer of a TOML file.
fn file(path: &str, text: &str) -> Result<Layer, String> {
    let table: toml::Table =
        text.parse().map_err(|why: toml::de::Error| why.to_string().trim_end().replace('\n', " "))?;
    let mut layer = Layer::new(Origin::File(path.to_string()));
    for (name, value) in table {
        let list = OPTIONS.iter().any(|spec| spec.name == name && spec.form == Form::List);
        let values = match value {
            toml::Value::Array(values) if list => values,
            value => vec![value],
        };
        layer.values.insert(name.clone(), Vec::new());
        for value in values {
            let text = match value {
                toml::Value::String(text) => text,
                toml::Value::Integer(number) => number.to_string(),
                toml::Value::Boolean(truth) => truth.to_string(),
                other => return Err(format!("{name}: its value cannot be a TOML {}", other.type_str())),
            };
            layer.add(&name, text);
        }
    }
    Ok(layer)
}

/// A file whole, or for `-` a line of the terminal (not shown) or all of standard input.
fn read(path: &str) -> Result<String, String> {
    let limited = |from: &mut dyn Read| {
        let mut text = String::new();
        let length = from.take(FILE_MAX).read_to_string(&mut text).map_err(|why| why.to_string())?;
        if u64::try_from(length).is_ok_and(|length| length < FILE_MAX) { Ok(text) } else { Err("too long".to_string()) }
    };
    if path != "-" {
        let file = std::fs::File::open(path).map_err(|why| why.to_string());
        return file.and_then(|mut file| limited(&mut file)).map_err(|why| format!("cannot read {path}: {why}"));
    }
    let result = if std::io::stdin().is_terminal() { ask_terminal() } else { limited(&mut std::io::stdin().lock()) };
    result.map_err(|why| format!("cannot read standard input: {why}"))
}

/// Asks for a line without showing what is typed.
fn ask_terminal() -> Result<String, String> {
    let stdin = std::io::stdin();
    let before = tcgetattr(&stdin).map_err(|why| why.to_string())?;
    let mut silent = before.clone();
    silent.local_flags.remove(LocalFlags::ECHO);
    print::error_text("Password: ");
    tcsetattr(&stdin, SetArg::TCSAFLUSH, &silent).map_err(|why| why.to_string())?;
    let mut line = String::new();
    let result = stdin.read_line(&mut line);
    // The terminal is given back as it was, whatever came of the reading.
    let _ = tcsetattr(&stdin, SetArg::TCSAFLUSH, &before);
    print::error_text("\n");
    result.map(|_| line).map_err(|why| why.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_has_texts_numbers_truths_and_lists() {
        let text = "port = 7000\nno-discovery = true\npeers = [\"a\", \"b:7\"]\nnickname = \"n\"";
        let layer = file("/f", text).unwrap();
        let values = |name: &str| layer.values[name].join(",");
        assert_eq!([values("port"), values("no-discovery"), values("peers")], ["7000", "true", "a,b:7"]);
    }

    #[test]
    fn file_refuses_what_is_no_option_value() {
        assert!(file("/f", "port = ").err().unwrap().starts_with("TOML parse error"));
        assert_eq!(file("/f", "[router]\nport = 1").err().unwrap(), "router: its value cannot be a TOML table");
        assert_eq!(file("/f", "port = [1, 2]").err().unwrap(), "port: its value cannot be a TOML array");
        assert_eq!(file("/f", "port = 1.5").err().unwrap(), "port: its value cannot be a TOML float");
    }

    #[test]
    fn arguments_become_the_first_layer() {
        let router = Router { run_dir: Some("/r".into()), ..Router::default() };
        let launch =
            Launch { port: Some("1".into()), resume: true, peers: vec!["a".into(), "b".into()], ..Launch::default() };
        let layer = arguments(&router, Some(&launch));
        let names: Vec<&str> = layer.values.keys().map(String::as_str).collect();
        assert_eq!(names, ["peers", "port", "resume", "run-dir"]);
        assert_eq!(layer.values["peers"], ["a", "b"]);
    }
}
