use super::*;

fn layer(origin: Origin, values: &[(&str, &[&str])]) -> Layer {
    let texts = |v: &[&str]| v.iter().map(|text| text.to_string()).collect();
    Layer { origin, values: values.iter().map(|(name, v)| (name.to_string(), texts(v))).collect() }
}

fn cli(values: &[(&str, &[&str])]) -> Layer {
    layer(Origin::CommandLine, values)
}

fn resolve(layers: &[Layer]) -> Result<Config, Vec<String>> {
    let read = |path: &str| match path {
        "-" => Ok("from stdin\n".to_string()),
        "/pw" => Ok("secret\nsecond line\n".to_string()),
        "/empty" => Ok("\n".to_string()),
        "/keys" => Ok(format!("# who\n{} host1\n\nnonsense\n", "ab".repeat(32))),
        _ => Err(format!("cannot read {path}: no such file")),
    };
    Config::resolve(layers, &Ambient { hostname: "box", read: &read })
        .map_err(|faults| faults.iter().map(Fault::to_string).collect())
}

#[test]
fn defaults_are_those_of_the_manual() {
    let config = resolve(&[]).unwrap();
    assert_eq!((config.port, config.mtu, config.connection_limit), (6783, Mtu::Auto, 100));
    assert_eq!(config.nickname.as_str(), "box");
    assert_eq!(config.run_dir, PathBuf::from("/run/rnet"));
    assert!(config.discovery && config.guard && !config.foreground && !config.resume);
    assert!(config.password.is_none() && config.allow.is_none() && config.targets.is_empty());
}

#[test]
fn higher_layer_wins_an_option_whole() {
    let file = layer(Origin::File("/f".into()), &[("port", &["1"]), ("peers", &["a", "b"]), ("mtu", &["1300"])]);
    let env = layer(Origin::Environment, &[("port", &["2"]), ("nickname", &["n"])]);
    let config = resolve(&[cli(&[("port", &["3"]), ("peers", &["c"])]), env, file]).unwrap();
    assert_eq!((config.port, config.mtu, config.nickname.as_str()), (3, Mtu::Fixed(1300), "n"));
    assert_eq!(config.targets, ["c".parse().unwrap()]);
}

#[test]
fn reports_every_bad_value_at_once_with_its_layer() {
    let file = layer(Origin::File("/f".into()), &[("mtu", &["12"]), ("colour", &["red"]), ("capture", &["x"])]);
    let env = layer(Origin::Environment, &[("log-level", &["loud"]), ("no-discovery", &["maybe"])]);
    let bad_cli = cli(&[
        ("port", &["0"]),
        ("host", &["nowhere"]),
        ("peers", &["ok", "10.0.0.256", "a:b:c"]),
        ("allow", &["abc"]),
        ("run-dir", &["here"]),
        ("conn-limit", &["+5"]),
        ("password-file", &["/nope"]),
        ("nickname", &["a", "b"]),
    ]);
    insta::assert_snapshot!(resolve(&[bad_cli, env, file]).unwrap_err().join("\n"), @r#"
    colour in /f: is not an option; `rnet launch --help` lists them
    --password-file: cannot read /nope: no such file
    PEER: "10.0.0.256" is not a peer's address such as 192.0.2.7, host2, host2:6783 or [fd00::7]:6783
    PEER: "a:b:c" is not a peer's address such as 192.0.2.7, host2, host2:6783 or [fd00::7]:6783
    --port: "0" is not a number from 1 to 65535
    --host: "nowhere" is not an IP address of this host
    --nickname: takes one value
    --run-dir: "here" is not an absolute path
    RNET_NO_DISCOVERY: "maybe" is not true or false
    --conn-limit: "+5" is not a number from 1 to 65535
    --allow: "abc" is not a public key: 64 hexadecimal digits, as `rnet report` shows it
    mtu in /f: "12" is not auto, or a number from 1280 to 65453
    capture in /f: "x" is not one of tap, packet, pcap
    RNET_LOG_LEVEL: "loud" is not one of error, warning, warn, info, debug
    "#);
}

#[test]
fn what_would_be_ignored_is_refused() {
    let faults = |values: &[(&str, &[&str])]| resolve(&[cli(values)]).err().unwrap_or_default().join("\n");
    let by_pcap = |threads: &str| faults(&[("capture", &["pcap"]), ("threads", &[threads])]);
    assert_eq!(by_pcap("2"), "--threads: 2 are too many for --capture pcap, which has one: use --capture packet");
    assert_eq!((by_pcap("1"), by_pcap("auto")), (String::new(), String::new()));
    let subnets: (&str, &[&str]) = ("trusted-subnets", &["10.0.0.0/8"]);
    assert_eq!(faults(&[subnets]), "--trusted-subnets: is of no use without a password: nothing is encrypted anyhow");
    assert_eq!(faults(&[("trusted-subnets", &[""])]), "");
    assert_eq!(faults(&[subnets, ("password-file", &["/pw"])]), "");
    // One fault is not told as two.
    assert!(!faults(&[subnets, ("password-file", &["/nope"])]).contains("of no use"));
}

#[test]
fn password_comes_from_the_highest_layer_that_names_one() {
    let secret = |layers: &[Layer]| resolve(layers).unwrap().password.map(|p| p.expose().to_vec());
    let env = layer(Origin::Environment, &[("password", &["of env"])]);
    assert_eq!(secret(&[cli(&[("password-file", &["/pw"])]), env.clone()]), Some(b"secret".to_vec()));
    assert_eq!(secret(&[cli(&[]), env]), Some(b"of env".to_vec()));
    assert_eq!(secret(&[cli(&[("password", &["-"])])]), Some(b"from stdin".to_vec()));
    assert_eq!(secret(&[cli(&[])]), None);
}

#[test]
fn refuses_an_ambiguous_empty_or_exposed_password() {
    let both = resolve(&[cli(&[("password", &["x"]), ("password-file", &["/pw"])])]).unwrap_err();
    assert_eq!(both, ["--password: cannot stand beside --password-file: give one of them"]);
    assert_eq!(resolve(&[cli(&[("password-file", &["/empty"])])]).unwrap_err().len(), 1);
    assert_eq!(resolve(&[cli(&[("password", &[""])])]).unwrap_err(), ["--password: the password is empty"]);
    assert_eq!(resolve(&[layer(Origin::File("/f".into()), &[("password", &["x"])])]).unwrap_err().len(), 1);
}

#[test]
fn allow_list_joins_options_and_file_and_names_the_bad_line() {
    let faults = resolve(&[cli(&[("allow-file", &["/keys"])])]).unwrap_err();
    assert_eq!(faults.len(), 1);
    assert!(faults[0].starts_with("/keys line 4: \"nonsense\""), "{faults:?}");
    let key = "cd".repeat(32);
    assert_eq!(resolve(&[cli(&[("allow", &[&key, &key])])]).unwrap().allow.unwrap().len(), 1);
}

#[test]
fn advertised_are_addresses_that_others_can_reach() {
    let good = cli(&[("advertise", &["192.0.2.7 [2001:db8::1]:7000"])]);
    let told: Vec<String> = resolve(&[good]).unwrap().advertise.iter().map(|address| address.to_string()).collect();
    assert_eq!(told, ["192.0.2.7:0", "[2001:db8::1]:7000"]);
    let bad = cli(&[("advertise", &["127.0.0.1", "224.0.0.5:1", "myhost"]), ("interface-filter", &["e*h"])]);
    insta::assert_snapshot!(resolve(&[bad]).unwrap_err().join("\n"), @r#"
    --advertise: 127.0.0.1 is a loopback address: others cannot reach this host there
    --advertise: 224.0.0.5:1 is a multicast address: others cannot reach this host there
    --advertise: myhost is a name, and an IP address is needed: others cannot reach this host there
    --interface-filter: "e*h" is not a list of interface names such as eth0,en* or !docker*,!tun0 (* only at the end)
    "#);
}

#[test]
fn ranges_are_disjoint_networks_and_may_be_none() {
    let ranges = |texts: &[&str]| resolve(&[cli(&[("ipalloc-range", texts)])]).map(|config| config.ranges);
    let texts = |ranges: Vec<Network>| ranges.iter().map(Network::to_string).collect::<Vec<_>>();
    assert_eq!(texts(resolve(&[]).unwrap().ranges), ["10.32.0.0/12"]);
    assert_eq!(texts(ranges(&["10.8.0.0/16,fd00:7::/48", "10.9.0.0/16"]).unwrap()).len(), 3);
    assert_eq!(texts(ranges(&[""]).unwrap()).len(), 0);
    for bad in ["10.8.0.1/16", "10.8.0.0/31", "10.8.0.0/16 10.8.1.0/24", "x"] {
        assert_eq!(ranges(&[bad]).unwrap_err().len(), 1, "{bad}");
    }
}

#[test]
fn address_options_are_checked_together() {
    let with = |name, text| resolve(&[cli(&[(name, &[text])])]);
    assert_eq!(with("ipalloc-init", "consensus=3").unwrap().init, Some(Init::Consensus(3)));
    assert_eq!(with("ipalloc-init", "observer").unwrap().init, Some(Init::Observer));
    let seeds = with("ipalloc-init", "seed=02:00:00:00:00:01,02:00:00:00:00:02").unwrap().init;
    assert!(matches!(seeds, Some(Init::Seed(names)) if names.len() == 2));
    for bad in ["consensus=0", "consensus=+1", "consensus", "seed=", "seed=x", "leader"] {
        assert!(with("ipalloc-init", bad).is_err(), "{bad}");
    }
    let minutes = |text| with("ipalloc-reclaim", text).map(|config| config.reclaim.map(|time| time.as_secs() / 60));
    assert_eq!([minutes("30m"), minutes("2d"), minutes("never")], [Ok(Some(30)), Ok(Some(2880)), Ok(None)]);
    assert_eq!(resolve(&[]).unwrap().reclaim, Some(Duration::from_secs(3600)));
    for bad in ["1", "h", "0s", "-1h", "1w", "99999999999999999999d", "1 h"] {
        assert!(minutes(bad).is_err(), "{bad}");
    }
    assert!(with("ipalloc-default-subnet", "10.32.0.0/11").is_ok(), "it may be larger than the range");
    let why = with("ipalloc-default-subnet", "10.64.0.0/16").unwrap_err();
    assert_eq!(why, ["--ipalloc-default-subnet: 10.64.0.0/16 lies outside of the range 10.32.0.0/12"]);
    let off = resolve(&[cli(&[("ipalloc-range", &[""]), ("ipalloc-init", &["observer"])])]).unwrap_err();
    assert_eq!(off, ["--ipalloc-init: is of no use without an --ipalloc-range"]);
}

#[test]
fn resume_takes_no_peers_and_directories_differ() {
    assert!(resolve(&[cli(&[("resume", &["true"])])]).unwrap().resume);
    assert_eq!(resolve(&[cli(&[("resume", &["true"]), ("peers", &["a"])])]).unwrap_err().len(), 1);
    assert_eq!(resolve(&[cli(&[("run-dir", &["/x"]), ("data-dir", &["/x/"])])]).unwrap_err().len(), 1);
    assert_eq!(resolve(&[cli(&[("run-dir", &[&format!("/{}", "x".repeat(97))])])]).unwrap_err().len(), 1);
}
