//! The map in `src/lib.rs` is true: a room uses lower rooms and no sibling, and the pure rooms (L0 to L3) touch no
//! clock, socket, file, thread or process, and hold no `unsafe`.
//!
//! Reads the sources as tokens, without comments and strings. Every path counts, wherever it stands: `use crate::a::b`,
//! groups (`use crate::{a, b::c}`), inline paths (`crate::a::f()`), and `super::super::a` that climbs to the crate's root.
//! Tests inside the sources keep to the map too, but may start threads and ask clocks.

#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Layers up to this one are pure.
const PURE: u32 = 3;

/// What no pure room may name: a path that begins so. `unsafe` is looked for beside them.
const IMPURE: [&str; 12] = [
    "std::time::Instant",
    "std::time::SystemTime",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::net::UdpSocket",
    "std::net::ToSocketAddrs",
    "std::fs",
    "std::thread",
    "std::process",
    "std::env",
    "std::os",
    "tokio",
];

/// Room to layer, as the head of `src/lib.rs` draws it: `//! L2  mesh plane   who is where; ...`.
fn map(lib: &str) -> BTreeMap<String, u32> {
    let mut map = BTreeMap::new();
    for line in lib.lines() {
        let Some((layer, rest)) = line.strip_prefix("//! L").and_then(|rest| rest.split_once("  ")) else { continue };
        let Ok(layer) = layer.parse() else { continue };
        let rooms = rest.trim_start().split("  ").next().unwrap();
        map.extend(rooms.split_whitespace().map(|room| (room.to_owned(), layer)));
    }
    map
}

/// Source text to words and signs; `::` is one sign. Comments, strings and characters are left out.
fn tokens(source: &str) -> Vec<String> {
    let text: Vec<char> = source.chars().collect();
    let (mut tokens, mut at) = (Vec::new(), 0);
    while at < text.len() {
        let rest = &text[at..];
        at += match rest {
            ['/', '/', ..] => rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()),
            ['/', '*', ..] => comment_len(rest),
            ['r', '"' | '#', ..] if raw_string_len(rest).is_some() => raw_string_len(rest).unwrap(),
            ['"', ..] => string_len(rest),
            ['\'', '\\', ..] => 2 + rest[3..].iter().position(|c| *c == '\'').unwrap_or(0) + 2,
            ['\'', _, '\'', ..] => 3,
            [':', ':', ..] => {
                tokens.push("::".to_owned());
                2
            }
            [c, ..] if c.is_alphanumeric() || *c == '_' => {
                let word: String = rest.iter().take_while(|c| c.is_alphanumeric() || **c == '_').collect();
                tokens.push(word.clone());
                word.chars().count()
            }
            [c, ..] => {
                if !c.is_whitespace() {
                    tokens.push(c.to_string());
                }
                1
            }
            [] => 1,
        };
    }
    tokens
}

fn comment_len(text: &[char]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        match &text[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn string_len(text: &[char]) -> usize {
    let mut at = 1;
    while at < text.len() && text[at] != '"' {
        at += if text[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

fn raw_string_len(text: &[char]) -> Option<usize> {
    let hashes = text[1..].iter().take_while(|c| **c == '#').count();
    let open = 1 + hashes + 1;
    if text.get(1 + hashes) != Some(&'"') {
        return None;
    }
    let close: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    let found = text[open..].windows(close.len()).position(|window| window == close)?;
    Some(open + found + close.len())
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// All paths of the tree that begins at `at`, each after `prefix`, and where the tree ends.
fn paths_at(tokens: &[String], mut at: usize, prefix: &[String], found: &mut Vec<Vec<String>>) -> usize {
    let mut path = prefix.to_vec();
    while let Some(word) = tokens.get(at).filter(|token| is_word(token) || *token == "*") {
        path.push(word.clone());
        at += 1;
        if tokens.get(at).map(String::as_str) != Some("::") {
            break;
        }
        at += 1;
        if tokens.get(at).map(String::as_str) == Some("{") {
            at += 1;
            while tokens.get(at).is_some_and(|token| token != "}") {
                let end = paths_at(tokens, at, &path, found);
                // Whatever is not a path (a comma, `as name`) is stepped over.
                at = end.max(at + 1);
            }
            return at + 1;
        }
    }
    found.push(path);
    at
}

/// The same without `#[cfg(test)] mod name { ... }`.
fn without_tests(tokens: &[String]) -> Vec<String> {
    let (mut kept, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        let is_test = tokens[at..].iter().zip(["#", "[", "cfg", "(", "test", ")", "]", "mod"]).all(|(a, b)| a == b);
        if !is_test || tokens.get(at + 9).map(String::as_str) != Some("{") {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        at += 9;
        let mut depth = 0;
        while at < tokens.len() {
            depth += i32::from(tokens[at] == "{") - i32::from(tokens[at] == "}");
            at += 1;
            if depth == 0 {
                break;
            }
        }
    }
    kept
}

/// The rooms and the paths that tokens use. `depth`: how many modules below the crate's root their file is.
fn uses(tokens: &[String], depth: usize) -> (Vec<String>, Vec<String>) {
    let (mut rooms, mut paths) = (Vec::new(), Vec::new());
    // The brace depths at which inline modules were opened.
    let (mut braces, mut modules) = (0, Vec::new());
    let mut at = 0;
    while at < tokens.len() {
        match tokens[at].as_str() {
            "{" => braces += 1,
            "}" => {
                braces -= 1;
                if modules.last() == Some(&braces) {
                    modules.pop();
                }
            }
            "mod" if tokens.get(at + 2).map(String::as_str) == Some("{") => modules.push(braces),
            word if is_word(word) && tokens.get(at + 1).map(String::as_str) == Some("::") => {
                let mut found = Vec::new();
                at = paths_at(tokens, at, &[], &mut found);
                for path in found {
                    rooms.extend(room(&path, depth + modules.len()));
                    paths.push(path.join("::"));
                }
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    (rooms, paths)
}

/// The room that a path leads to from `depth` modules below the root, if it climbs to the root.
fn room(path: &[String], depth: usize) -> Option<String> {
    let supers = path.iter().skip_while(|word| *word == "self").take_while(|word| *word == "super").count();
    let selves = path.iter().take_while(|word| *word == "self").count();
    match path.first()?.as_str() {
        "crate" => path.get(1).cloned(),
        _ if supers > 0 && supers == depth => path.get(selves + supers).cloned(),
        _ => None,
    }
}

/// What is wrong with one file of `room`, `depth` modules below the root.
fn faults(map: &BTreeMap<String, u32>, home: &str, depth: usize, source: &str) -> Vec<String> {
    let Some(layer) = map.get(home) else { return vec![format!("{home} is not on the map in src/lib.rs")] };
    let tokens = tokens(source);
    let (rooms, _) = uses(&tokens, depth);
    let mut faults = Vec::new();
    for room in rooms.iter().filter(|room| *room != home) {
        match map.get(room) {
            Some(theirs) if theirs > layer => faults.push(format!("{home} (L{layer}) looks up to {room} (L{theirs})")),
            Some(theirs) if theirs == layer => faults.push(format!("{home} looks sideways to {room} (both L{layer})")),
            _ => {}
        }
    }
    if *layer <= PURE {
        let (_, paths) = uses(&without_tests(&tokens), depth);
        let begins = |path: &str, impure: &str| path == impure || path.starts_with(&format!("{impure}::"));
        let named = paths.iter().filter(|path| IMPURE.iter().any(|impure| begins(path, impure)));
        faults.extend(named.map(|path| format!("{home} (L{layer}, pure) names {path}")));
        if tokens.iter().any(|token| token == "unsafe") {
            faults.push(format!("{home} (L{layer}, pure) has unsafe code"));
        }
    }
    faults.sort();
    faults.dedup();
    faults
}

fn visit(at: &Path, modules: &[String], map: &BTreeMap<String, u32>, found: &mut Vec<String>) {
    for entry in fs::read_dir(at).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        let mut inside = modules.to_vec();
        if path.is_dir() {
            inside.push(stem);
            visit(&path, &inside, map, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            if stem != "mod" {
                inside.push(stem);
            }
            // The library's root is the map, and the binary's stands above all rooms.
            if matches!(inside.as_slice(), [root] if root == "lib" || root == "main") {
                continue;
            }
            let mut source = fs::read_to_string(&path).unwrap();
            let mut depth = inside.len();
            if inside.iter().any(|module| module == "tests" || module == "testing") {
                // The file is the module that stands around it here.
                source = format!("#[cfg(test)] mod tests {{ {source} }}");
                depth -= 1;
            }
            let faults = faults(map, &inside[0], depth, &source);
            found.extend(faults.into_iter().map(|fault| format!("{}: {fault}", path.display())));
        }
    }
}

fn real_map() -> BTreeMap<String, u32> {
    map(&fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/lib.rs")).unwrap())
}

#[test]
fn every_room_uses_lower_rooms_only_and_pure_rooms_touch_nothing() {
    let mut found = Vec::new();
    visit(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), &[], &real_map(), &mut found);
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn the_map_names_every_room_of_the_library() {
    let lib = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/lib.rs")).unwrap();
    let rooms = lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    let map = real_map();
    assert!(map.len() >= 8 && map["types"] == 0 && map["node"] == 3);
    let missing: Vec<&str> = rooms.filter(|room| !map.contains_key(*room)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn catches_planted_violations() {
    let map =
        map("//! L4  io        calls\n//! L2  mesh plane   who\n//! L1  wire crypto  bytes\n//! L0  types   words\n");
    let planted = [
        ("use crate::plane::fib;", "mesh looks sideways to plane (both L2)"),
        ("use crate::io;", "mesh (L2) looks up to io (L4)"),
        ("use crate::{types::{Mac, Instant}, io::clock};", "mesh (L2) looks up to io (L4)"),
        ("pub(crate) use crate::{wire as w, plane as p};", "mesh looks sideways to plane (both L2)"),
        ("fn f() { let x = crate::io::clock::now(); }", "mesh (L2) looks up to io (L4)"),
        ("use super::super::io::Clock;", "mesh (L2) looks up to io (L4)"),
        ("mod tests { use super::super::super::plane::Plane; }", "mesh looks sideways to plane (both L2)"),
        ("use std::time::{Duration, Instant};", "mesh (L2, pure) names std::time::Instant"),
        ("fn f(t: std::time::SystemTime) {}", "mesh (L2, pure) names std::time::SystemTime"),
        ("use std::{fs, fmt};", "mesh (L2, pure) names std::fs"),
        ("use std::net::{SocketAddr, UdpSocket as U};", "mesh (L2, pure) names std::net::UdpSocket"),
        ("fn f() { std::thread::spawn(|| ()); }", "mesh (L2, pure) names std::thread::spawn"),
        ("fn f() { unsafe { g() } }", "mesh (L2, pure) has unsafe code"),
        ("#[cfg(test)] mod tests { use crate::plane; }", "mesh looks sideways to plane (both L2)"),
        (
            "#[cfg(test)] mod tests { fn f() {} } fn g() { std::thread::yield_now() }",
            "mesh (L2, pure) names std::thread::yield_now",
        ),
        ("/* a /* b */ */ const S: &str = r#\"\"//\"#; use crate::io;", "mesh (L2) looks up to io (L4)"),
        ("const C: char = '\"'; use crate::io; const D: char = '\\'';", "mesh (L2) looks up to io (L4)"),
    ];
    for (source, fault) in planted {
        assert_eq!(faults(&map, "mesh", 2, source), [fault], "{source}");
    }
    assert_eq!(faults(&map, "attic", 1, ""), ["attic is not on the map in src/lib.rs"]);
}

#[test]
fn lets_innocent_code_pass() {
    let map =
        map("//! L4  io        calls\n//! L2  mesh plane   who\n//! L1  wire crypto  bytes\n//! L0  types   words\n");
    for source in [
        "use crate::types::Instant; use crate::{wire::frame, mesh::peers};",
        "use super::peers::Peers; mod tests { use super::super::peers; use super::*; }",
        "// crate::io and unsafe\n/// std::fs\nconst S: &str = \"crate::io::x unsafe \\\" std::fs\";",
        "use std::net::{IpAddr, SocketAddr}; use std::time::Duration;",
        "#[cfg(test)] mod tests { fn f() { std::thread::scope(|s| ()); } }",
        "fn f<'a>(x: &'a str) -> char { 'x' }",
    ] {
        assert_eq!(faults(&map, "mesh", 2, source), [] as [&str; 0], "{source}");
    }
}
