//! The model checker's atomics, with one repair.
//!
//! `loom` 0.7 decides by the last access to an object alone where threads have to be tried in another order.
//! A thread that loads a word and then changes it thereby hides the loads of others in between, and
//! interleavings are left out. So each atomic here has a companion that every access stores to first and
//! nobody ever loads: a store hides nothing, and what is never loaded synchronises nobody.

use loom::sync::atomic as unchecked;
use unchecked::Ordering;

macro_rules! checked {
    ($($name:ident($value:ty) $(<$param:ident>)? : $($op:ident)*;)*) => {$(
        /// An atomic all of whose accesses are tried in every order.
        #[derive(Debug)]
        pub struct $name$(<$param>)? {
            word: unchecked::$name$(<$param>)?,
            companion: unchecked::AtomicBool,
        }

        impl$(<$param>)? $name$(<$param>)? {
            /// The atomic with this value.
            pub fn new(value: $value) -> Self {
                Self { word: unchecked::$name::new(value), companion: unchecked::AtomicBool::new(false) }
            }

            fn word(&self) -> &unchecked::$name$(<$param>)? {
                self.companion.store(true, Ordering::Relaxed);
                &self.word
            }

            /// As the language's.
            pub fn load(&self, order: Ordering) -> $value {
                self.word().load(order)
            }

            /// As the language's.
            pub fn store(&self, value: $value, order: Ordering) {
                self.word().store(value, order);
            }

            /// As the language's.
            pub fn compare_exchange(
                &self, now: $value, new: $value, success: Ordering, failure: Ordering,
            ) -> Result<$value, $value> {
                self.word().compare_exchange(now, new, success, failure)
            }

            /// As the language's, but never fails without reason.
            pub fn compare_exchange_weak(
                &self, now: $value, new: $value, success: Ordering, failure: Ordering,
            ) -> Result<$value, $value> {
                self.compare_exchange(now, new, success, failure)
            }

            $(
                /// As the language's.
                pub fn $op(&self, value: $value, order: Ordering) -> $value {
                    self.word().$op(value, order)
                }
            )*
        }
    )*};
}

checked! {
    AtomicBool(bool): swap fetch_or fetch_and;
    AtomicU32(u32): swap fetch_add fetch_sub fetch_or fetch_and;
    AtomicU64(u64): swap fetch_add fetch_sub fetch_or fetch_and;
    AtomicUsize(usize): swap fetch_add fetch_sub fetch_or fetch_and;
    AtomicPtr(*mut T)<T>: swap;
}
