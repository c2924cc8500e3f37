//! What capabilities allow and forbid.

use abi::{Error, Handle, Rights, initial};
use rt::call;

/// Tries each rule.
pub fn obey() {
    rights_only_shrink();
    revocation_reaches_all_that_was_derived();
    forged_handles_name_nothing();
    slots_are_used_anew_with_new_generations();
    derivations_have_a_depth();
    kinds_are_told_apart();
}

fn rights_only_shrink() {
    let notification = call::create_notification().expect("a notification");
    let weak = call::mint(notification, Rights::USE, 0).expect("derive");
    assert_eq!(call::notify(weak, 5), Ok(()));
    assert_eq!(call::wait(weak, 0), Err(Error::NoRight));
    assert_eq!(call::destroy(weak), Err(Error::NoRight));
    assert_eq!(call::mint(weak, Rights::ALL, 0), Err(Error::NoRight));
    assert_eq!(call::wait(notification, 0), Ok(5));
    assert_eq!(call::destroy(notification), Ok(()));
    assert_eq!(call::notify(weak, 1), Err(Error::Destroyed));
}

fn revocation_reaches_all_that_was_derived() {
    let root = call::create_notification().expect("a notification");
    let child = call::mint(root, Rights::ALL, 1).expect("child");
    let grandchild = call::mint(child, Rights::ALL, 2).expect("grandchild");
    assert_eq!(call::notify(grandchild, 1), Ok(()));
    assert_eq!(call::revoke(root), Ok(()));
    for gone in [child, grandchild] {
        assert_eq!(call::notify(gone, 1), Err(Error::Revoked));
        assert_eq!(call::mint(gone, Rights::ALL, 0), Err(Error::Revoked));
        assert_eq!(call::delete(gone), Ok(()), "a revoked capability can be given up");
    }
    assert_eq!(call::wait(root, 0), Ok(1), "the capability itself stays");
    let again = call::mint(root, Rights::ALL, 3).expect("derive again");
    let below = call::mint(again, Rights::ALL, 4).expect("below");
    assert_eq!(call::delete(again), Ok(()));
    assert_eq!(call::notify(below, 1), Err(Error::Revoked), "deleting takes back what was derived");
    assert_eq!(call::delete(below), Ok(()));
    assert_eq!(call::destroy(root), Ok(()));
}

fn forged_handles_name_nothing() {
    let space = initial::ADDRESS_SPACE;
    let forgeries = [
        Handle(0),
        Handle(u64::MAX),
        Handle(space.0 + (1 << 22)),
        Handle(space.0 | 1 << 63),
        Handle::new(511, 0, 1),
        Handle::new(0, 4095, 1),
        Handle::new(0, 0, u32::MAX),
    ];
    for forged in forgeries {
        assert_eq!(call::notify(forged, 1), Err(Error::NoCapability), "{forged:x?}");
        assert_eq!(call::delete(forged), Err(Error::NoCapability), "{forged:x?}");
    }
}

fn slots_are_used_anew_with_new_generations() {
    let notification = call::create_notification().expect("a notification");
    let mut last = call::mint(notification, Rights::USE, 0).expect("derive");
    for _ in 0..1000 {
        assert_eq!(call::delete(last), Ok(()));
        let next = call::mint(notification, Rights::USE, 0).expect("derive");
        assert_ne!(next, last);
        assert_eq!(call::notify(last, 1), Err(Error::StaleHandle));
        last = next;
    }
    assert_eq!(call::delete(last), Ok(()));
    assert_eq!(call::destroy(notification), Ok(()));
}

fn derivations_have_a_depth() {
    let notification = call::create_notification().expect("a notification");
    let mut deepest = notification;
    for _ in 1..abi::DERIVATION_DEPTH {
        deepest = call::mint(deepest, Rights::ALL, 0).expect("derive");
    }
    assert_eq!(call::mint(deepest, Rights::ALL, 0), Err(Error::TooDeep));
    assert_eq!(call::notify(deepest, 1), Ok(()));
    assert_eq!(call::destroy(deepest), Ok(()));
}

fn kinds_are_told_apart() {
    assert_eq!(call::notify(initial::ADDRESS_SPACE, 1), Err(Error::WrongKind));
    assert_eq!(call::call(initial::CPU_CONTROL, [0; 4]), Err(Error::WrongKind));
    assert_eq!(call::destroy(initial::CPU_CONTROL), Err(Error::WrongKind));
}
