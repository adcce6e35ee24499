//! Names of the kernel objects that rnet makes, and which names are its own. Pure.
//!
//! ```text
//! rnb<net>   bridge of a network        <net>  network id, 6 hexadecimal digits
//! rnt<net>   its TAP
//! rnp<net>   captured end of a veth pair, instead of the TAP; rnq<net> its other end, on the bridge
//! rnx<net>   its VXLAN device over IPv4, rny<net> over IPv6; rnxffffff and rnyffffff are those that heartbeats pass
//! rnv<hash>  our end of an attachment's interface; 8 hexadecimal digits
//! ```
//!
//! Invariant: [`is_ours`] holds for these and for nothing else; a device of such a name but of another kind is not ours either.

use crate::types::NetId;
use aws_lc_rs::digest;

/// The bridge of a network.
pub fn bridge(id: NetId) -> String {
    id.bridge()
}

/// Its TAP.
pub fn tap(id: NetId) -> String {
    format!("rnt{:06x}", id.value())
}

/// The veth pair that stands in for the TAP: the captured end, and the end on the bridge.
pub fn pair(id: NetId) -> (String, String) {
    (format!("rnp{:06x}", id.value()), format!("rnq{:06x}", id.value()))
}

/// Our end of the interface `inside` of the attachment `key`: a hash, because a device's name has 15 bytes at most.
pub fn veth(key: &str, inside: &str) -> String {
    let hash = digest::digest(&digest::SHA256, format!("{key}\0{inside}").as_bytes());
    hash.as_ref().iter().take(4).fold("rnv".to_string(), |name, byte| format!("{name}{byte:02x}"))
}

/// The VXLAN device with this VNI, a network's or that of heartbeats.
pub fn vxlan(vni: u32, ipv6: bool) -> String {
    format!("{}{vni:06x}", if ipv6 { "rny" } else { "rnx" })
}

/// Whether this name is one of ours for a VXLAN device.
pub fn is_vxlan(name: &str) -> bool {
    is_ours(name, "vxlan")
}

/// Whether a device of this name and kind is one that rnet makes.
pub fn is_ours(name: &str, kind: &str) -> bool {
    let Some((prefix, rest)) = name.split_at_checked(3) else { return false };
    let (digits, expected) = match prefix {
        "rnb" => (6, "bridge"),
        "rnt" => (6, "tun"),
        "rnp" | "rnq" => (6, "veth"),
        "rnv" => (8, "veth"),
        "rnx" | "rny" => (6, "vxlan"),
        _ => return false,
    };
    kind == expected && rest.len() == digits && rest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether a device that is ours proves that a router lives: a TAP goes with its descriptor, and only a capture makes the
/// captured end promiscuous.
pub fn is_in_use(name: &str, promiscuity: u32) -> bool {
    name.starts_with("rnt") || (name.starts_with("rnp") && promiscuity > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fit_the_kernel_and_are_recognised() {
        for id in [NetId::new(1).unwrap(), NetId::new(0xff_fffe).unwrap()] {
            let (captured, bridged) = pair(id);
            let all = [
                (bridge(id), "bridge"),
                (tap(id), "tun"),
                (captured, "veth"),
                (bridged, "veth"),
                (veth("k", "rnet0"), "veth"),
                (vxlan(id.value(), false), "vxlan"),
                (vxlan(id.value(), true), "vxlan"),
            ];
            for (name, kind) in all {
                assert!(name.len() <= 15 && is_ours(&name, kind), "{name}");
                assert!(!is_ours(&name, "dummy") && !is_ours(&name, ""), "{name}");
            }
        }
        assert_eq!(bridge(NetId::new(0x8312a4).unwrap()), "rnb8312a4");
    }

    #[test]
    fn others_names_are_not_ours() {
        for name in [
            "rnb",
            "rnb8312a",
            "rnb8312a44",
            "rnb8312A4",
            "rnb8312ag",
            "rnet0",
            "eth0",
            "",
            "rn",
            "rnz8312a4",
            "rnvé123456",
            "xrnb8312a4",
        ] {
            for kind in ["bridge", "tun", "veth"] {
                assert!(!is_ours(name, kind), "{name} {kind}");
            }
        }
    }

    #[test]
    fn each_interface_of_each_attachment_has_its_own() {
        assert_ne!(veth("pid:7", "rnet0"), veth("pid:7", "rnet1"));
        assert_ne!(veth("pid:7", "rnet0"), veth("pid:8", "rnet0"));
        assert_eq!(veth("pid:7", "rnet0"), veth("pid:7", "rnet0"));
    }
}
