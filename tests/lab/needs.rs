//! What some tests need beyond what every room does: asked once, before any test runs, so that a test without it counts as
//! ignored and never as passed.
//!
//! With `RNET_LAB_REQUIRE=1` such a test fails, unless what it needs is optional: Open vSwitch, which `./dev test` does not install.

use crate::room::{Room, possible};
use libtest_mimic::Trial;
use std::fs::File;
use std::path::Path;
use std::sync::LazyLock;

/// Runs a program on a kernel that lacks something; see its head.
pub const OLDER: [&str; 4] = ["python3", "-u", "-c", include_str!("older.py")];

/// Why there can be no room here; asked once.
pub static ROOMS: LazyLock<Result<(), String>> = LazyLock::new(possible);

/// See the head of this file. Without rooms nothing is known, and nothing runs.
pub struct Need {
    lack: LazyLock<Option<String>>,
    optional: bool,
}

/// TAP devices.
pub static TAP: Need = Need {
    lack: LazyLock::new(|| {
        let tap = File::options().read(true).write(true).open("/dev/net/tun");
        tap.err().map(|why| format!("no TAP here: /dev/net/tun: {why}"))
    }),
    optional: false,
};

/// A kernel that lets `older.py` answer in its place.
pub static OLDER_KERNEL: Need = Need {
    lack: LazyLock::new(|| {
        let room = Room::new();
        let host = room.host("a");
        let outcome = host.run(&[&OLDER[..], &[&room.path("older.log"), "vxlan", "true"]].concat());
        (outcome.code == 77).then(|| format!("no older kernel can be played here: {}", outcome.stderr.trim()))
    }),
    optional: false,
};

/// Open vSwitch.
pub static OPEN_VSWITCH: Need = Need {
    lack: LazyLock::new(|| {
        let dirs = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
        let present = |tool: &&str| dirs.iter().any(|dir| Path::new(dir).join(tool).exists());
        let missing =
            ["ovsdb-server", "ovs-vswitchd", "ovs-vsctl", "ovsdb-tool"].into_iter().find(|tool| !present(tool));
        missing.map(|tool| format!("Open vSwitch is not installed here: {tool} is missing"))
    }),
    optional: true,
};

/// Whether what can be skipped must not be.
pub fn required() -> bool {
    std::env::var_os("RNET_LAB_REQUIRE").is_some_and(|value| value == "1")
}

/// A test as it counts on this machine.
pub fn trial(name: String, needs: &[&'static Need], fact: fn()) -> Trial {
    let lacking = needs.iter().filter(|_| ROOMS.is_ok()).find_map(|need| Some((need.lack.as_deref()?, need.optional)));
    match lacking {
        Some((why, optional)) if optional || !required() => {
            eprintln!("skipped: {name}: {why}");
            // Asked for by name (`--ignored`) it does not pass either.
            Trial::test(name, move || Err(why.into())).with_ignored_flag(true)
        }
        Some((why, _)) => Trial::test(name, move || Err(format!("it is required (RNET_LAB_REQUIRE=1): {why}").into())),
        None => Trial::test(name, move || {
            let _shared = crate::wait::machine_shared();
            fact();
            Ok(())
        }),
    }
}
