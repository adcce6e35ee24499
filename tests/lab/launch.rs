//! Launching, asking, stopping: the router's life as the command line shows it.

use crate::room::{Process, RNET, Room, SOON};
use crate::wait::{throughout, until};
use std::process::Stdio;
use std::time::Duration;

crate::facts![
    launch_prints_the_name_and_returns_when_ready,
    launch_lets_go_of_its_output,
    foreground_tells_systemd_that_it_is_ready_and_stops_on_term,
    second_launch_is_refused_and_the_first_goes_on,
    port_taken_is_one_line_and_nothing_is_left,
    bad_options_are_reported_before_anything_is_done,
    without_privilege_is_one_line_and_nothing_is_left,
    socket_of_a_dead_router_is_no_obstacle,
    commands_without_a_router_say_so,
    name_survives_a_restart_and_reset_forgets_it,
    targets_are_kept_for_resume,
    password_is_seen_nowhere,
    commands_of_later_issues_say_so,
];

fn launch_prints_the_name_and_returns_when_ready() {
    let room = Room::new();
    let a = room.host("a");
    let name = a.launch_with(&["--password-file", &room.path("pw")], &[]).ok();
    let status = a.status();
    assert!(name.contains(&status.name.to_string()), "{name}");
    assert!(status.encrypted);
    assert_eq!((status.nickname.as_str(), status.port), ("a", 6783));
    a.rnet(&["stop"]).ok();
    a.is_clean();
}

fn launch_lets_go_of_its_output() {
    let room = Room::new();
    let a = room.host("a");
    // `cat` ends only when nobody holds the pipe any more.
    let text = a.sh(&format!("{RNET} launch 2>&1 | cat"));
    assert!(text.contains(&a.status().name.to_string()), "{text}");
}

fn foreground_tells_systemd_that_it_is_ready_and_stops_on_term() {
    let room = Room::new();
    let a = room.host("a");
    let socket = room.path("notify");
    let listen = "import socket,sys\ns=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM);s.bind(sys.argv[1])\nprint('bound')\n\
        while True: print(s.recv(999).decode().strip())";
    let systemd = a.start(&["python3", "-u", "-c", listen, &socket]);
    until(SOON, "systemd listens", || systemd.stdout().contains("bound"));
    let router = a.start(&["env", &format!("NOTIFY_SOCKET={socket}"), RNET, "launch", "--foreground"]);
    until(SOON, "READY=1", || systemd.stdout().contains("READY=1"));
    a.status();
    let outcome = router.end("TERM");
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert!(systemd.stdout().contains("STOPPING=1"), "{}", systemd.stdout());
    a.is_clean();
}

fn second_launch_is_refused_and_the_first_goes_on() {
    let room = Room::new();
    let [a, b] = room.chain(["a", "b"]);
    a.launch(&[]);
    b.launch(&[&a.toward(&b)]);
    let (one, _other) = (a.container(&["10.2.1.1/24"]), b.container(&["10.2.1.2/24"]));
    let stream = one.stream("10.2.1.2");
    a.launch_with(&["--password-file", &room.path("pw")], &[]).refused(1, &["already", "running"]);
    // Nor is one with other directories let in by the back door: the port is taken.
    let (run, data) = (room.path("run2"), room.path("data2"));
    a.launch_with(&["--run-dir", &run, "--data-dir", &data], &[]).refused(1, &["6783"]);
    stream.unharmed();
    assert_eq!(a.interfaces().len(), b.interfaces().len());
}

fn port_taken_is_one_line_and_nothing_is_left() {
    let room = Room::new();
    let a = room.host("a");
    let mut squatter = occupy(&a, "6783");
    a.launch_with(&[], &[]).refused(1, &["6783", "in use by python3", "(process ", "--port"]);
    assert_eq!(a.interfaces(), Vec::<String>::new());
    assert!(!a.run_dir().join("rnet.sock").exists());
    a.launch_with(&["--port", "6799"], &[]).ok();
    assert_eq!(a.status().port, 6799);
    squatter.close_input();
    let b = room.host("b");
    b.sh("ip link add vx9 type vxlan id 9 dstport 6783 && ip link set vx9 up");
    b.launch_with(&[], &[]).refused(1, &["6783", "in use", "vx9 (VNI 9)", "--port"]);
}

fn occupy(host: &crate::room::Host, port: &str) -> Process {
    let squatter = host.start_with(&["python3", "-u", "-c", include_str!("wire.py"), "occupy", port], Stdio::piped());
    until(SOON, "the port is taken", || squatter.stdout().contains("ready"));
    squatter
}

fn bad_options_are_reported_before_anything_is_done() {
    let room = Room::new();
    let a = room.host("a");
    for (options, word) in [
        (["--port", "70000"], "70000"),
        (["--mtu", "20"], "20"),
        (["--password-file", "/does/not/exist"], "/does/not/exist"),
        (["--allow", "nonsense"], "nonsense"),
        (["--no-such-option", "1"], "--no-such-option"),
    ] {
        let outcome = a.launch_with(&options, &[]);
        assert!(outcome.code == 1 || outcome.code == 2, "{outcome:?}");
        assert!(outcome.stderr.contains(word), "{word}: {outcome:?}");
    }
    let outcome = a.launch_with(&[], &["not/a/host"]);
    assert!(outcome.code != 0 && outcome.stderr.contains("not/a/host"), "{outcome:?}");
    assert!(!a.run_dir().exists() && !a.data_dir().exists(), "a bad option left files");
    a.is_clean();
}

fn without_privilege_is_one_line_and_nothing_is_left() {
    let room = Room::new();
    let a = room.host("a");
    // The program where nobody can read it, and directories that nobody can write, so that only the privilege is missing.
    a.sh(&format!("touch /run/rnet-program && mount --bind {RNET} /run/rnet-program && mkdir -m 777 /run/r /run/d"));
    let launch = ["/run/rnet-program", "launch", "--run-dir", "/run/r/r", "--data-dir", "/run/d/d"];
    let no_capabilities: &[&str] = &["setpriv", "--inh-caps=-all", "--bounding-set=-all", "--"];
    let nobody: &[&str] = &["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"];
    // A user namespace made by a user knows no second user.
    let ways = if nix::unistd::geteuid().is_root() { vec![no_capabilities, nobody] } else { vec![no_capabilities] };
    for way in ways {
        a.run(&[way, &launch].concat()).refused(1, &["root"]);
        a.is_clean();
        assert_eq!(a.sh("find /run/r /run/d -type s -o -type f").trim(), "");
    }
}

fn socket_of_a_dead_router_is_no_obstacle() {
    let room = Room::new();
    let a = room.host("a");
    a.launch(&[]);
    a.murder();
    assert!(a.run_dir().join("rnet.sock").exists(), "the test wants a stale socket");
    a.rnet(&["status"]).refused(1, &["not running"]);
    a.launch(&[]);
    a.status();
}

fn commands_without_a_router_say_so() {
    let room = Room::new();
    let a = room.host("a");
    for command in [&["status"][..], &["report"], &["ps"], &["stop"], &["connect", "10.0.0.1"], &["forget", "10.0.0.1"]]
    {
        a.rnet(command).refused(1, &["not running"]);
    }
    a.rnet(&["run", "--cidr", "10.2.1.1/24", "--", "true"]).refused(1, &["not running"]);
    a.rnet(&["attach", "10.2.1.1/24", "pid:1"]).refused(1, &["not running"]);
}

fn name_survives_a_restart_and_reset_forgets_it() {
    let room = Room::new();
    let a = room.host("a");
    a.launch(&[]);
    let name = a.status().name;
    a.rnet(&["stop"]).ok();
    a.launch(&[]);
    assert_eq!(a.status().name, name);
    a.rnet(&["reset", "--force"]).ok();
    a.is_clean();
    let left = a.sh(&format!("find {} {} -type f 2>/dev/null || true", a.data_dir().display(), a.run_dir().display()));
    assert_eq!(left.trim(), "", "reset left files");
    a.launch(&[]);
    assert_ne!(a.status().name, name);
}

fn targets_are_kept_for_resume() {
    let room = Room::new();
    let [a, b] = room.chain(["a", "b"]);
    a.launch(&[]);
    b.launch(&[]);
    b.rnet(&["connect", &a.toward(&b)]).ok();
    b.linked(1);
    b.rnet(&["stop"]).ok();
    b.launch_with(&["--password-file", &room.path("pw"), "--resume"], &[]).ok();
    b.linked(1);
    b.rnet(&["forget", &a.toward(&b)]).ok();
    assert!(b.status().targets.is_empty());
    throughout(Duration::from_millis(500), "forget leaves the link up", || b.status().connections.len() == 1);
    b.rnet(&["stop"]).ok();
    b.launch_with(&["--password-file", &room.path("pw"), "--resume"], &[]).ok();
    assert!(b.status().targets.is_empty());
}

fn password_is_seen_nowhere() {
    let room = Room::new();
    let [a, b] = room.chain(["a", "b"]);
    let secret = "hunter2-and-a-half";
    let launch = ["env", &format!("RNET_PASSWORD={secret}"), RNET, "launch"];
    a.run(&launch).ok();
    b.run(&[&launch[..], &[&a.toward(&b)]].concat()).ok();
    b.linked(1);
    let inside =
        a.run(&["env", &format!("RNET_PASSWORD={secret}"), RNET, "run", "--cidr", "10.2.1.1/24", "--", "env"]).ok();
    assert!(!inside.contains(secret), "a contained process sees the password");
    assert!(!a.rnet(&["report"]).ok().contains(secret));
    let files = format!("grep -rls {secret} {} {} || true", a.data_dir().display(), a.run_dir().display());
    assert_eq!(a.sh(&files).trim(), "", "a file holds the password");
    let argv = a.sh(&format!("tr '\\0' ' ' </proc/{}/cmdline", a.router_pid()));
    assert!(!argv.contains(secret), "{argv}");
}

fn commands_of_later_issues_say_so() {
    let room = Room::new();
    let a = room.host("a");
    a.launch(&[]);
    for command in [&["run", "--docker", "--", "alpine"][..], &["status", "dns"]] {
        a.rnet(command).refused(1, &["not"]);
    }
    assert_eq!(a.interfaces(), Vec::<String>::new());
}
