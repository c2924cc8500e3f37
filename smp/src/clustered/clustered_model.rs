use core::alloc::Layout;
use core::ptr::NonNull;

use loom::thread;

use crate::backing::{Backing, Exhausted};
use crate::clustered::{Account, Balance, Clustered, Counter, Credit, Degree, Ids, Replicated, Root};
use crate::flaw::{Sound, Variant, broken};
use crate::host::{Heap, Machine, check};
use crate::lock::Briefly;
use crate::platform::{Cpu, CpuId};
use crate::sync::AtomicU64;

broken!(TornWithdrawal);
broken!(TornTakeBack);
broken!(TornList);
broken!(EarlyNumber);
broken!(NoRefresh);
broken!(OneByOne);

/// The host's allocator, but nothing is given back: what uses it too late finds it as it was.
struct Leaking;

// SAFETY: the heap keeps the promise.
unsafe impl Backing for Leaking {
    fn take(&self, layout: Layout, near: CpuId) -> Result<NonNull<u8>, Exhausted> {
        Heap.take(layout, near)
    }

    unsafe fn give(&self, _: NonNull<u8>, _: Layout) {}
}

/// Runs `work` on two CPUs with the object that `make` returns, and then `end`. Two threads, at most two
/// preemptions.
fn on_two_cpus<R: Root + 'static, O: Send + 'static>(
    make: fn() -> R,
    work: fn(&'static Clustered<R>, Cpu<'static>) -> O,
    end: fn(&'static Clustered<R>, [O; 2]),
) where
    Clustered<R>: Sync,
{
    check(2, move || {
        // Leaked, as the threads of the model have to live for ever.
        let machine: &'static Machine = Box::leak(Box::new(Machine::new(2)));
        let map: &'static [AtomicU64; 1] = Box::leak(Box::new(Ids::map()));
        // SAFETY: the only numbers with these tables; the first few are within them.
        let ids = unsafe { Ids::new(map, 2) };
        let object: &'static Clustered<R> =
            Box::leak(Box::new(Clustered::new(&ids, CpuId::BOOT, make()).unwrap()));
        let other = thread::spawn(move || work(object, machine.claim(CpuId::new(1).unwrap())));
        let own = work(object, machine.claim(CpuId::BOOT));
        end(object, [own, other.join().unwrap()]);
    });
}

/// Two CPUs add once each, both for the first time.
fn two_add<V: Variant>(degree: fn() -> Counter<Heap, V>) {
    on_two_cpus(
        degree,
        |counter, cpu| counter.reference().add(cpu, 1),
        |counter, _| assert_eq!(counter.root().sum(), 2, "an addition got lost"),
    );
}

#[test]
fn a_counter_with_one_part_loses_nothing() {
    two_add::<Sound>(|| Counter::new(Heap, Degree::Machine));
}

#[test]
fn a_counter_with_a_part_a_cpu_loses_nothing() {
    two_add::<Sound>(|| Counter::new(Heap, Degree::Cpu));
}

#[test]
#[should_panic(expected = "an addition got lost")]
fn must_fail_when_a_part_is_added_without_an_exchange() {
    two_add::<TornList>(|| Counter::of_variant(Heap, Degree::Cpu));
}

/// CPU 0 destroys an object that CPU 1 has used, while CPU 1 makes one, perhaps of the same number, and uses that.
/// Two threads, at most two preemptions.
fn destroy_races_with_new<V: Variant>() {
    check(2, move || {
        let machine: &'static Machine = Box::leak(Box::new(Machine::new(2)));
        let map: &'static [AtomicU64; 1] = Box::leak(Box::new(Ids::map()));
        // SAFETY: the only numbers with these tables; the first few are within them.
        let ids: &'static Ids<'_> = Box::leak(Box::new(unsafe { Ids::new(map, 2) }));
        let counter = || Clustered::new(ids, CpuId::BOOT, Counter::new(Leaking, Degree::Cpu)).unwrap();
        let old = counter();
        let [cpu, other] = [0, 1].map(|index| machine.claim(CpuId::new(index).unwrap()));
        old.reference().add(cpu, 1);
        old.reference().add(other, 1);
        let user = thread::spawn(move || {
            // SAFETY: from here on this thread alone is CPU 1.
            let cpu = unsafe { machine.again(CpuId::new(1).unwrap()) };
            let new = Box::leak(Box::new(counter()));
            new.reference().add(cpu, 1);
            assert_eq!(new.root().sum(), 1, "an old entry was used");
        });
        old.destroy_variant::<_, V>(machine, ids);
        user.join().unwrap();
    });
}

#[test]
fn a_number_is_given_again_only_with_empty_entries() {
    destroy_races_with_new::<Sound>();
}

#[test]
#[should_panic(expected = "an old entry was used")]
fn must_fail_when_a_number_is_free_before_its_entries_are_empty() {
    destroy_races_with_new::<EarlyNumber>();
}

/// CPU 0 pays 2 of a balance of 1, for which it has to take back what CPU 1 holds, which pays 1 meanwhile: of 3 in
/// all, so that neither is refused. Two threads, at most three preemptions.
fn pay_by_taking_back<V: Variant>() {
    check(3, || {
        let world: &'static (Balance<V>, [Credit; 2]) =
            Box::leak(Box::new((Balance::of_variant(1, 0), [Credit::new(), Credit::new()])));
        let (balance, credits) = world;
        // CPU 1 has credit for 2, from elsewhere.
        Balance::new(0, 1).refund(&credits[1], 2);
        let other = CpuId::new(1).unwrap();
        let payer = thread::spawn(move || balance.pay(other, &credits[1], 1, || credits.iter()).is_ok());
        let paid = balance.pay(CpuId::BOOT, &credits[0], 2, || credits.iter()).is_ok();
        let both = [(paid, 2), (payer.join().unwrap(), 1)];
        let spent: u64 = both.into_iter().filter(|(paid, _)| *paid).map(|(_, amount)| amount).sum();
        assert_eq!(balance.total(credits.iter()) + spent, 3, "credit was made or lost");
        assert!(paid && both[1].0, "refused although there was enough");
    });
}

#[test]
fn credit_that_another_cpu_holds_is_taken_back_before_a_payment_is_refused() {
    pay_by_taking_back::<Sound>();
}

#[test]
#[should_panic(expected = "credit was made or lost")]
fn must_fail_when_taking_back_is_torn() {
    pay_by_taking_back::<TornTakeBack>();
}

/// Two CPUs pay 2 each from a balance of 3.
fn two_pay<V: Variant>() {
    on_two_cpus(
        || Account::<_, V>::of_variant(Heap, Degree::Cpu, 3, 1),
        |account, cpu| account.reference().pay(cpu, 2).is_ok(),
        |account, paid| {
            let paid = paid.into_iter().filter(|paid| *paid).count() as u64;
            assert_eq!(account.root().total() + 2 * paid, 3, "credit was made or lost");
        },
    );
}

#[test]
fn an_account_pays_what_it_has() {
    two_pay::<Sound>();
}

#[test]
#[should_panic(expected = "credit was made or lost")]
fn must_fail_when_a_withdrawal_is_torn() {
    two_pay::<TornWithdrawal>();
}

/// One CPU makes its copy while the other updates; afterwards the copy has the new word.
fn miss_races_with_update<V: Variant>() {
    on_two_cpus(
        || Replicated::<1, 1, _, V>::of_variant(Heap, Degree::Cpu, [0]),
        |value, cpu| {
            if cpu.id() == CpuId::BOOT {
                value.root().update(&Briefly, |[word]| [word + 1]);
                None
            } else {
                let _ = value.reference().read(cpu, &Briefly);
                // The copy stays; its address tells it to the end.
                Some(core::ptr::from_ref(value.reference().get(cpu).unwrap()).expose_provenance())
            }
        },
        |_, copies| {
            let address = copies.into_iter().flatten().next().unwrap();
            let copy = core::ptr::with_exposed_provenance::<crate::lock::SeqLock<1, 1>>(address);
            // SAFETY: a copy of a leaked object.
            assert_eq!(unsafe { &*copy }.read(&Briefly), [1], "a copy is behind for ever");
        },
    );
}

#[test]
fn a_new_copy_gets_the_update() {
    miss_races_with_update::<Sound>();
}

#[test]
#[should_panic(expected = "a copy is behind for ever")]
fn must_fail_when_a_new_copy_is_not_refreshed() {
    miss_races_with_update::<NoRefresh>();
}

/// CPU 0 changes a value while another thread reads it on CPU 1 and then on CPU 2, which both have copies unless
/// `is_first`: then CPU 2 reads for the first time. What is read later is not older, whichever copy was made first.
/// Two threads, at most three preemptions.
fn read_here_then_there<V: Variant>(made: [usize; 2], is_first: bool) {
    check(3, move || {
        let machine: &'static Machine = Box::leak(Box::new(Machine::new(3)));
        let map: &'static [AtomicU64; 1] = Box::leak(Box::new(Ids::map()));
        // SAFETY: the only numbers with these tables; the first few are within them.
        let ids = unsafe { Ids::new(map, 3) };
        let value = Replicated::<1, 1, _, V>::of_variant(Heap, Degree::Cpu, [0]);
        let value: &'static Clustered<_> =
            Box::leak(Box::new(Clustered::new(&ids, CpuId::BOOT, value).unwrap()));
        let reference = value.reference();
        let [_, here, there] = [0, 1, 2].map(|index| machine.claim(CpuId::new(index).unwrap()));
        let made: &[usize] = if is_first { &[1] } else { &made };
        for index in made {
            assert_eq!(reference.read(if *index == 1 { here } else { there }, &Briefly), [0]);
        }
        let other = thread::spawn(move || value.root().update(&Briefly, |[word]| [word + 1]));
        if let Some([before]) = reference.read_at_once(here) {
            let after =
                if is_first { Some(reference.read(there, &Briefly)) } else { reference.read_at_once(there) };
            assert!(after.is_none_or(|[after]| after >= before), "the old word after the new one");
        }
        other.join().unwrap();
        assert_eq!([here, there].map(|cpu| reference.read(cpu, &Briefly)), [[1], [1]], "a copy is behind");
    });
}

#[test]
fn nobody_reads_the_old_words_after_somebody_has_read_the_new_ones() {
    read_here_then_there::<Sound>([1, 2], false);
    read_here_then_there::<Sound>([2, 1], false);
}

#[test]
fn nobody_reads_the_old_words_for_the_first_time_either() {
    read_here_then_there::<Sound>([1, 2], true);
}

#[test]
#[should_panic(expected = "the old word after the new one")]
fn must_fail_when_copies_change_one_by_one() {
    // The copy that was made last is written first.
    read_here_then_there::<OneByOne>([2, 1], false);
}
