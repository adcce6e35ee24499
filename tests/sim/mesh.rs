//! Stories in fair weather: who is told to reach whom does.

use super::world::{H, World, millis, secs};

const NET: &str = "10.2.1.0/24";

#[test]
fn chain_of_three_pings_end_to_end_and_the_relay_learns_nothing() {
    let mut world = World::new(1);
    let [a, b, c] = world.hosts();
    world.only(&[(a, b), (b, c)]);
    world.launch(a, &[]);
    world.launch(b, &[a]);
    world.run_for(secs(1));
    world.attach(a, "10.2.1.1/24");
    world.launch(c, &[b]);
    let launched = world.now;
    world.attach(c, "10.2.1.3/24");
    world.run_until(secs(3), |world| world.ping(c, a, NET)).expect("within 3 s of the third launch");
    assert!(world.now - launched < secs(3), "{:?}", world.now - launched);
    assert!(world.status(b).macs.is_empty());
    assert!(world.status(a).macs.iter().any(|seen| seen.peer == Some(world.name(c))));
}
