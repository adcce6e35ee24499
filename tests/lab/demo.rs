//! The demo shows what it promises and leaves nothing, however it ends.

use crate::room::{RNET, Room, SOON};
use crate::wait::until;

crate::facts![demo_shows_an_encrypted_mesh_and_leaves_nothing, interrupted_demo_leaves_nothing];

fn demo_shows_an_encrypted_mesh_and_leaves_nothing() {
    let room = Room::new();
    let host = room.host("laptop");
    let links = host.sh("ip -o link show");
    let files = room.path("tmp");
    host.sh(&format!("mkdir {files}"));
    let shown = host.start(&["env", &format!("TMPDIR={files}"), RNET, "demo"]).finish(2 * SOON);
    assert_eq!(shown.code, 0, "{shown:?}");
    for words in ["20 of 20 as expected", "Gbit/s", "relayed by b", "Encryption: enabled", "encrypted"] {
        assert!(shown.stdout.contains(words), "{words}: {}", shown.stdout);
    }
    assert!(!shown.stdout.contains("(!)"), "{}", shown.stdout);
    assert_eq!(host.sh("ip -o link show"), links);
    assert_eq!(host.sh(&format!("ls {files}")), "");
    assert_eq!(host.others("rnet"), Vec::<String>::new());
}

fn interrupted_demo_leaves_nothing() {
    let room = Room::new();
    let host = room.host("laptop");
    let files = room.path("tmp");
    host.sh(&format!("mkdir {files}"));
    let demo = host.start(&["env", &format!("TMPDIR={files}"), RNET, "demo"]);
    until(SOON, "the containers run", || demo.stdout().contains("who reaches whom"));
    let outcome = demo.end("INT");
    assert_eq!(outcome.code, 130, "{outcome:?}");
    assert_eq!(host.sh(&format!("ls {files}")), "");
    assert_eq!(host.others("rnet"), Vec::<String>::new());
}
