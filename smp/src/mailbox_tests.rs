#[cfg(not(loom))]
mod host {
    use core::ptr::NonNull;
    use std::collections::VecDeque;
    use std::vec::Vec;

    use proptest::prelude::*;

    use crate::chain::{Chain, Node};
    use crate::host::Machine;
    use crate::mailbox::Mailbox;
    use crate::platform::CpuId;

    #[test]
    fn one_wake_serves_a_batch() {
        let machine = Machine::new(1);
        let mailbox = Mailbox::new();
        let mut nodes = [0; 5].map(Node::new);
        let (first, second) = nodes.split_at_mut(3);
        for batch in [first, second] {
            for node in batch {
                // SAFETY: the node outlives its stay.
                unsafe { mailbox.send(&machine, CpuId::BOOT, NonNull::from(node)) };
            }
            let _ = mailbox.take();
        }
        assert_eq!(machine.wakes(CpuId::BOOT), 2);
    }

    #[test]
    fn a_chain_arrives_as_a_whole() {
        let mut nodes = [0, 1, 2].map(Node::new);
        let mut chain = Chain::new();
        // SAFETY: the nodes outlive their stay.
        nodes.iter_mut().for_each(|node| unsafe { chain.push(NonNull::from(node)) });
        let mailbox = Mailbox::new();
        assert!(mailbox.push_chain(chain));
        assert!(!mailbox.push_chain(Chain::new()));
        // SAFETY: as above.
        assert_eq!(mailbox.take().map(|node| unsafe { node.as_ref() }.value).collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push,
        PushChain(usize),
        Take,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![3 => Just(Step::Push), 1 => (0..5usize).prop_map(Step::PushChain), 2 => Just(Step::Take)]
    }

    proptest! {
        #[test]
        fn a_mailbox_agrees_with_a_queue(steps in proptest::collection::vec(step(), 0..60)) {
            let mut nodes: Vec<_> = (0..5 * steps.len()).map(Node::new).collect();
            let mut fresh = nodes.iter_mut().map(NonNull::from);
            let mailbox = Mailbox::new();
            let mut queue = VecDeque::new();
            // SAFETY: each node outlives its stay, and is used once.
            let number = |node: NonNull<Node<usize>>| unsafe { node.as_ref() }.value;
            for step in steps {
                prop_assert_eq!(mailbox.is_empty(), queue.is_empty());
                match step {
                    Step::Push => {
                        let node = fresh.next().unwrap();
                        // SAFETY: as above.
                        let was_empty = unsafe { mailbox.push(node) };
                        prop_assert_eq!(was_empty, queue.is_empty());
                        queue.push_back(number(node));
                    }
                    Step::PushChain(count) => {
                        let mut chain = Chain::new();
                        let wakes = count > 0 && queue.is_empty();
                        for node in fresh.by_ref().take(count) {
                            // SAFETY: as above.
                            unsafe { chain.push(node) };
                            queue.push_back(number(node));
                        }
                        prop_assert_eq!(mailbox.push_chain(chain), wakes);
                    }
                    Step::Take => {
                        let taken: VecDeque<_> = mailbox.take().map(number).collect();
                        prop_assert_eq!(taken, core::mem::take(&mut queue));
                    }
                }
            }
        }
    }

    #[test]
    fn messages_of_each_sender_arrive_once_and_in_order() {
        const SENDERS: usize = 3;
        const EACH: usize = 2000;
        let mailbox = Mailbox::new();
        let machine = Machine::new(SENDERS + 1);
        machine.run(|cpu| {
            if cpu.id() == CpuId::BOOT {
                let mut next = [0; SENDERS + 1];
                while next.iter().sum::<usize>() < SENDERS * EACH {
                    for node in mailbox.take() {
                        // SAFETY: leaked by its sender.
                        let (from, number): (usize, usize) = unsafe { node.as_ref() }.value;
                        assert_eq!(number, next[from]);
                        next[from] += 1;
                    }
                }
            } else {
                for number in 0..EACH {
                    let node =
                        std::boxed::Box::leak(std::boxed::Box::new(Node::new((cpu.id().index(), number))));
                    // SAFETY: leaked, hence live for ever.
                    unsafe { mailbox.send(&machine, CpuId::BOOT, NonNull::from(node)) };
                }
            }
        });
        assert!(mailbox.is_empty());
    }
}

#[cfg(loom)]
mod model {
    use core::ptr::NonNull;

    use loom::sync::Arc;
    use loom::thread;

    use crate::chain::Node;
    use crate::flaw::{Sound, Variant, broken};
    use crate::host::{Machine, check};
    use crate::mailbox::Mailbox;
    use crate::platform::CpuId;

    broken!(RelaxedRelease);
    broken!(StaleWake);

    /// Two senders with a message each, and a receiver that looks once before they have surely come: each
    /// message arrives once, and if one is left over, a wake came after the look. Three threads, at most three
    /// preemptions.
    fn two_senders_and_a_receiver<V: Variant>() {
        check(3, || {
            let machine = Arc::new(Machine::new(1));
            let mailbox = Arc::new(Mailbox::<usize, V>::of_variant());
            let senders = [1, 2].map(|value| {
                let (machine, mailbox) = (machine.clone(), mailbox.clone());
                thread::spawn(move || {
                    let node = Box::leak(Box::new(Node::new(value)));
                    // SAFETY: leaked until the receiver frees it.
                    unsafe { mailbox.send(&*machine, CpuId::BOOT, NonNull::from(node)) };
                })
            });
            let receive = || {
                // SAFETY: the sender leaked the box and the message is ours.
                let open = |node: NonNull<Node<usize>>| unsafe { Box::from_raw(node.as_ptr()) }.value;
                mailbox.take().map(open).sum::<usize>()
            };
            let wakes = machine.wakes(CpuId::BOOT);
            let early = receive();
            senders.into_iter().for_each(|sender| sender.join().unwrap());
            let woken = machine.wakes(CpuId::BOOT) > wakes;
            assert!(mailbox.is_empty() || woken, "nobody woke the receiver");
            assert_eq!(early + receive(), 3, "a message got lost");
        });
    }

    #[test]
    fn every_message_arrives_and_wakes() {
        two_senders_and_a_receiver::<Sound>();
    }

    #[test]
    #[should_panic(expected = "Causality violation")]
    fn must_fail_when_a_message_is_not_released() {
        two_senders_and_a_receiver::<RelaxedRelease>();
    }

    #[test]
    #[should_panic(expected = "nobody woke the receiver")]
    fn must_fail_when_an_earlier_look_decides_the_wake() {
        two_senders_and_a_receiver::<StaleWake>();
    }
}
