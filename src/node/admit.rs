//! Who may link: the whole decision, as a function.
//!
//! Two questions, in the order in which they can be answered: after the handshake the key alone (`key`), after the
//! introduction the rest (`introduced`). Both ends of a link ask them about each other, so an answer that depends on the
//! pair only (ourselves, duplicate) is the same on both.

use crate::mesh::link::CHALLENGE_TIMEOUT;
use crate::types::{Nickname, PeerName, PublicKey, Refusal, Uid};
use std::time::Duration;

/// What we are and allow.
#[derive(Debug, Clone, Copy)]
pub(super) struct House<'a> {
    pub key: PublicKey,
    pub name: PeerName,
    pub uid: Uid,
    pub range: &'a str,
    pub allow: Option<&'a [PublicKey]>,
    /// Links that stand, and how many may.
    pub links: usize,
    pub limit: usize,
}

/// Who asks to be linked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Applicant<'a> {
    pub key: PublicKey,
    pub uid: Uid,
    pub range: &'a str,
    /// See `Link::rank`.
    pub rank: u64,
}

/// The link that we have to the same peer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    pub uid: Uid,
    pub rank: u64,
    pub silent_for: Duration,
}

/// The decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Accept,
    /// Accept, and close the standing link as a duplicate.
    Replace,
    /// Ask the standing link for a sign of life: one key is in two places, or its old place is dead.
    Challenge,
    Refuse(Refusal),
}

/// Why a peer with this key may not link, whatever it says. `known`: the key that the mesh knows under its name.
pub(super) fn key(house: &House<'_>, theirs: PublicKey, known: Option<PublicKey>) -> Option<Refusal> {
    if theirs == house.key {
        // Ourselves or a clone of us: the introduction tells.
        return None;
    }
    if theirs.name() == house.name || known.is_some_and(|known| known != theirs) {
        return Some(Refusal::NameCollision);
    }
    let allowed = house.allow.is_none_or(|allow| allow.contains(&theirs));
    (!allowed).then_some(Refusal::NotAllowed)
}

/// Whether a peer that introduced itself is linked.
pub(super) fn introduced(house: &House<'_>, applicant: &Applicant<'_>, standing: Option<Standing>) -> Verdict {
    if applicant.key == house.key {
        return Verdict::Refuse(if applicant.uid == house.uid { Refusal::Ourselves } else { Refusal::Cloned });
    }
    if is_different(applicant.range, house.range) {
        let (theirs, ours) = (applicant.range.to_string(), house.range.to_string());
        return Verdict::Refuse(Refusal::RangeMismatch { theirs, ours });
    }
    match standing {
        Some(standing) if standing.uid != applicant.uid => Verdict::Challenge,
        // A live link says something each second; a silent one has lost its other end.
        Some(standing) if applicant.rank < standing.rank || standing.silent_for > CHALLENGE_TIMEOUT => Verdict::Replace,
        Some(_) => Verdict::Refuse(Refusal::AlreadyConnected),
        None if house.links >= house.limit => {
            Verdict::Refuse(Refusal::ConnectionLimit { limit: u32::try_from(house.limit).unwrap_or(u32::MAX) })
        }
        None => Verdict::Accept,
    }
}

/// Two allocators that divide different spaces cannot agree who has what. Who has none takes part in nothing.
fn is_different(theirs: &str, ours: &str) -> bool {
    // Theirs came as `wire::message::Intro` reads it: cut and cleaned.
    !theirs.is_empty() && !ours.is_empty() && theirs != Nickname::new(ours).as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: PublicKey = PublicKey([1; 32]);
    const THEIRS: PublicKey = PublicKey([2; 32]);

    fn house() -> House<'static> {
        House { key: OURS, name: OURS.name(), uid: Uid(1), range: "10.32.0.0/12", allow: None, links: 0, limit: 2 }
    }

    fn applicant() -> Applicant<'static> {
        Applicant { key: THEIRS, uid: Uid(2), range: "10.32.0.0/12", rank: 50 }
    }

    fn standing(uid: u64, rank: u64) -> Option<Standing> {
        Some(Standing { uid: Uid(uid), rank, silent_for: Duration::from_millis(900) })
    }

    #[test]
    fn takes_in_a_peer_until_the_limit() {
        assert_eq!(introduced(&house(), &applicant(), None), Verdict::Accept);
        let full = House { links: 2, ..house() };
        assert_eq!(introduced(&full, &applicant(), None), Verdict::Refuse(Refusal::ConnectionLimit { limit: 2 }));
        assert_eq!(
            introduced(&full, &applicant(), standing(2, 60)),
            Verdict::Replace,
            "one more does not make it more"
        );
    }

    #[test]
    fn tells_ourselves_from_a_clone_of_us() {
        let same = Applicant { key: OURS, uid: Uid(1), ..applicant() };
        assert_eq!(introduced(&house(), &same, None), Verdict::Refuse(Refusal::Ourselves));
        assert_eq!(introduced(&house(), &Applicant { uid: Uid(9), ..same }, None), Verdict::Refuse(Refusal::Cloned));
    }

    #[test]
    fn of_duplicates_the_lower_stays() {
        assert_eq!(introduced(&house(), &applicant(), standing(2, 51)), Verdict::Replace);
        assert_eq!(introduced(&house(), &applicant(), standing(2, 49)), Verdict::Refuse(Refusal::AlreadyConnected));
        let silent = Some(Standing { uid: Uid(2), rank: 49, silent_for: Duration::from_secs(2) });
        assert_eq!(introduced(&house(), &applicant(), silent), Verdict::Replace, "the old one is dead");
    }

    #[test]
    fn another_run_with_the_same_key_makes_the_old_one_prove_itself() {
        assert_eq!(introduced(&house(), &applicant(), standing(3, 1)), Verdict::Challenge);
    }

    #[test]
    fn refuses_keys_that_collide_or_are_not_listed() {
        assert_eq!(key(&house(), THEIRS, None), None);
        assert_eq!(key(&house(), THEIRS, Some(THEIRS)), None);
        assert_eq!(key(&house(), THEIRS, Some(PublicKey([3; 32]))), Some(Refusal::NameCollision));
        let strict = House { allow: Some(&[PublicKey([3; 32])]), ..house() };
        assert_eq!(key(&strict, THEIRS, None), Some(Refusal::NotAllowed));
        assert_eq!(key(&strict, PublicKey([3; 32]), None), None);
    }

    #[test]
    fn refuses_another_range_naming_both() {
        let other = Applicant { range: "10.0.0.0/8", ..applicant() };
        let Verdict::Refuse(refusal) = introduced(&house(), &other, None) else { panic!() };
        assert_eq!(
            refusal.to_string(),
            "different address range: peer has 10.0.0.0/8 and we have 10.32.0.0/12; launch both with the same --ipalloc-range"
        );
    }

    #[test]
    fn who_has_no_range_is_linked_and_long_ones_are_compared_as_they_travel() {
        let long = vec!["fd00:1111:2222:3333::/64"; 4].join(",");
        let told = Nickname::new(&long);
        let house = House { range: &long, ..house() };
        for range in ["", told.as_str()] {
            assert_eq!(introduced(&house, &Applicant { range, ..applicant() }, None), Verdict::Accept);
        }
        let none = House { range: "", ..house };
        assert_eq!(introduced(&none, &applicant(), None), Verdict::Accept);
    }
}
