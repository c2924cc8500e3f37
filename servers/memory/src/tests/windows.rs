//! What servers see of windows.

use api::badge::FILES;
use rt::layout::{OBJECT, OBJECTS, WINDOW};

use super::script::{Play, Step};
use super::world::{World, space_of, touch};
use super::{FIRST, ROOT, SECOND, alone};
use crate::object;
use crate::operations::Caller;
use crate::region::{Kind, Shape};

#[test]
fn a_server_sees_the_window_that_is_at_a_place_now_and_no_earlier_one() {
    let _alone = alone();
    let world = World::new();
    let mut play = Play::new(world, Vec::new());
    [ROOT, FILES, FIRST].into_iter().for_each(|process| play.run(Step::Admit(process)));
    let caller = |process| Caller { process, replica: world.replica_of(0) };
    let length = object::OBJECTS as u64 * OBJECT;
    let all = Shape { kind: Kind::Objects, process: FILES, object: 0, start: OBJECTS, length };
    play.server.make_region(caller(FILES), all).expect("a region of all objects");
    let place_of = |window: u64| window % object::OBJECTS as u64;
    let window = play.server.window(caller(ROOT), FIRST).expect("a window");
    let place = place_of(window);
    let server = play.server.clone();
    let look = move || {
        touch(world, &server, 1, FILES, OBJECTS + place * OBJECT, true).expect("it lives").expect("a page")
    };
    look();
    // A worker of the server's on another CPU still uses the window while its process is being taken apart.
    let late = look.clone();
    world.after_unmap(space_of(FILES), move || {
        late();
    });
    play.run(Step::Dismiss(FIRST));
    assert!(world.is_all_done());
    // All other places come before that one does again.
    loop {
        play.run(Step::Admit(SECOND));
        let window = play.server.window(caller(ROOT), SECOND).expect("a window");
        if place_of(window) == place {
            break;
        }
        play.run(Step::Dismiss(SECOND));
    }
    let theirs = touch(world, &play.server, 0, SECOND, WINDOW, true).expect("it lives").expect("a page");
    assert_eq!(look(), theirs, "what the server sees, and what the process does");
}
