//! What options there are, and the texts that were given for them: a layer for command line, environment and file each.
//!
//! Owns the names of options in each layer, and how a fault names the place that it was given at. What a text means is not known here.

use std::collections::BTreeMap;
use zeroize::Zeroize;

/// How an option is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Present or not; in environment and file `true` or `false`.
    Flag,
    /// One value.
    Value,
    /// Any number of values; separated by spaces in the environment, an array in the file.
    List,
}

/// One option of `launch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    /// Its name: `--port` on the command line, `port` in the file.
    pub name: &'static str,
    /// Its environment variable.
    pub env: &'static str,
    /// How it is written.
    pub form: Form,
}

const fn spec(name: &'static str, env: &'static str, form: Form) -> Spec {
    Spec { name, env, form }
}

/// Every option of `launch`, for all three layers. `peers` stands on the command line without a name.
pub const OPTIONS: [Spec; 31] = [
    spec("peers", "RNET_PEERS", Form::List),
    spec("port", "RNET_PORT", Form::Value),
    spec("host", "RNET_HOST", Form::Value),
    spec("nickname", "RNET_NICKNAME", Form::Value),
    spec("password", "RNET_PASSWORD", Form::Value),
    spec("password-file", "RNET_PASSWORD_FILE", Form::Value),
    spec("run-dir", "RNET_RUN_DIR", Form::Value),
    spec("data-dir", "RNET_DATA_DIR", Form::Value),
    spec("no-discovery", "RNET_NO_DISCOVERY", Form::Flag),
    spec("conn-limit", "RNET_CONN_LIMIT", Form::Value),
    spec("advertise", "RNET_ADVERTISE", Form::List),
    spec("interface-filter", "RNET_INTERFACE_FILTER", Form::Value),
    spec("allow", "RNET_ALLOW", Form::List),
    spec("allow-file", "RNET_ALLOW_FILE", Form::Value),
    spec("ipalloc-range", "RNET_IPALLOC_RANGE", Form::List),
    spec("ipalloc-default-subnet", "RNET_IPALLOC_DEFAULT_SUBNET", Form::Value),
    spec("ipalloc-init", "RNET_IPALLOC_INIT", Form::Value),
    spec("ipalloc-reclaim", "RNET_IPALLOC_RECLAIM", Form::Value),
    spec("mtu", "RNET_MTU", Form::Value),
    spec("framing", "RNET_FRAMING", Form::Value),
    spec("trusted-subnets", "RNET_TRUSTED_SUBNETS", Form::List),
    spec("capture", "RNET_CAPTURE", Form::Value),
    spec("interface", "RNET_INTERFACE", Form::List),
    spec("offload", "RNET_OFFLOAD", Form::Value),
    spec("threads", "RNET_THREADS", Form::Value),
    spec("pin-threads", "RNET_PIN_THREADS", Form::Flag),
    spec("no-guard", "RNET_NO_GUARD", Form::Flag),
    spec("log-level", "RNET_LOG_LEVEL", Form::Value),
    spec("foreground", "RNET_FOREGROUND", Form::Flag),
    spec("resume", "RNET_RESUME", Form::Flag),
    spec("config", "RNET_CONFIG", Form::Value),
];

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Arguments.
    CommandLine,
    /// Variables `RNET_*`.
    Environment,
    /// The file of `--config`.
    File(String),
}

/// The values of one layer by option name; a flag's value is `true` or `false`.
#[derive(Clone, PartialEq, Eq)]
pub struct Layer {
    /// Where they came from.
    pub origin: Origin,
    /// Texts as they were given. Unknown names are faults.
    pub values: BTreeMap<String, Vec<String>>,
}

impl Layer {
    /// A layer without values.
    pub fn new(origin: Origin) -> Layer {
        Layer { origin, values: BTreeMap::new() }
    }

    /// Adds `text` to the values of `name`.
    pub fn add(&mut self, name: &str, text: String) {
        self.values.entry(name.to_string()).or_default().push(text);
    }

    /// How a fault in `name` is introduced: `--port`, `RNET_PORT`, `port in /etc/rnet.toml`.
    pub(super) fn label(&self, name: &str) -> String {
        match &self.origin {
            Origin::CommandLine if name == "peers" => "PEER".to_string(),
            Origin::CommandLine => format!("--{name}"),
            Origin::Environment => OPTIONS
                .iter()
                .find(|spec| spec.name == name)
                .map_or_else(|| name.to_string(), |spec| spec.env.to_string()),
            Origin::File(path) => format!("{name} in {path}"),
        }
    }
}

/// A password among the values does not outlive the layer.
impl Drop for Layer {
    fn drop(&mut self) {
        self.values.get_mut("password").into_iter().flatten().for_each(Zeroize::zeroize);
    }
}
