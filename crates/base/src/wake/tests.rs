//! Rings, places in a wake group, and many wake slots notified a few at a time.

use futures_util::FutureExt;
use futures_util::task::noop_waker;
use tokio_util::task::TaskTracker;

use super::*;

#[tokio::test]
async fn rings_before_anyone_listens_count_as_one() {
    let wake_slot = WakeSlot::default();
    wake_slot.notify();
    wake_slot.clone().notify();
    wake_slot.notified().await;
    assert_eq!(wake_slot.notified().now_or_never(), None);
}

#[tokio::test]
async fn a_ring_wakes_the_driver_that_waits() {
    let wake_slot = WakeSlot::default();
    let driver = TaskTracker::new().spawn({
        let wake_slot = wake_slot.clone();
        async move { wake_slot.notified().await }
    });
    tokio::task::yield_now().await;
    wake_slot.notify();
    driver.await.unwrap();
}

#[test]
fn the_driver_of_a_belfry_hears_which_of_its_bells_were_rung() {
    let group = WakeGroup::default();
    let wake_slots: Vec<WakeSlot> = (0..63).map(|_| group.register().unwrap()).collect();
    assert!(group.register().is_none(), "there are 63 places");
    let numbers: Vec<u32> = wake_slots.iter().map(WakeSlot::number).collect();
    assert_eq!(numbers, (0..63).collect::<Vec<_>>());

    wake_slots[3].notify();
    Waker::from(Arc::new(wake_slots[62].clone())).wake();
    assert_eq!(group.take(), 1 << 3 | 1 << 62);
    assert_eq!(group.take(), 0);

    wake_slots[5].notify();
    wake_slots[6].notify();
    assert!(wake_slots[5].take() && !wake_slots[5].take());
    assert_eq!(
        group.take(),
        1 << 6,
        "what another wake_slot takes is its own"
    );
}

#[test]
fn a_place_is_free_when_the_last_clone_has_gone_and_a_closed_belfry_has_none() {
    let group = WakeGroup::default();
    let (first, second) = (group.register().unwrap(), group.register().unwrap());
    let again = first.clone();
    drop(first);
    assert_eq!(group.register().unwrap().number(), 2);
    drop(again);
    let reused = group.register().unwrap();
    assert_eq!((reused.number(), group.wake_slots()), (0, 2));
    assert!(!group.close());
    drop((second, reused));
    assert!(group.close());
    assert!(group.register().is_none());
}

#[tokio::test]
async fn the_driver_is_woken_when_the_last_bell_is_gone() {
    let group = WakeGroup::default();
    let wake_slot = group.register().unwrap();
    let driver = TaskTracker::new().spawn(poll_fn(move |context| {
        group.listen(context);
        match group.close() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }));
    tokio::task::yield_now().await;
    drop(wake_slot);
    driver.await.unwrap();
}

#[test]
fn a_full_belfry_counts_as_many_as_hang_there() {
    let group = WakeGroup::default();
    let (alone, mut wake_slots) = (WakeSlot::default(), WakeSlots::default());
    wake_slots.add(&alone);
    let together: Vec<WakeSlot> = std::iter::from_fn(|| group.register()).collect();
    together
        .iter()
        .for_each(|wake_slot| wake_slots.add(wake_slot));
    assert_eq!(wake_slots.notify_some(usize::MAX, 63), 1);
    assert!(!alone.take() && group.take() == (1 << 63) - 1);
}

#[test]
fn many_bells_are_rung_a_few_at_a_time_and_those_of_a_belfry_together() {
    let group = WakeGroup::default();
    group.listen(&mut Context::from_waker(&noop_waker()));
    let together: Vec<WakeSlot> = (0..3).map(|_| group.register().unwrap()).collect();
    let alone = [WakeSlot::default(), WakeSlot::default()];
    let mut wake_slots = WakeSlots::default();
    wake_slots.add(&alone[0]);
    together
        .iter()
        .for_each(|wake_slot| wake_slots.add(wake_slot));
    wake_slots.add(&together[0]);
    wake_slots.add(&alone[1]);
    assert_eq!(wake_slots.len(), 5);

    let left = wake_slots.notify_some(usize::MAX, 2);
    assert_eq!(left, 1);
    assert_eq!(group.take(), 0b111);
    assert!(alone[1].take() && !alone[0].take());
    assert_eq!(wake_slots.notify_some(left, 2), 0);
    assert!(alone[0].take());

    wake_slots.remove(&together[1]);
    wake_slots.remove(&together[1]);
    wake_slots.remove(&alone[1]);
    assert_eq!(wake_slots.len(), 3);
    assert_eq!(wake_slots.notify_some(usize::MAX, usize::MAX), 0);
    assert_eq!(group.take(), 0b101);
    assert!(alone[0].take() && !alone[1].take());
    wake_slots.remove(&alone[0]);
    wake_slots.remove(&together[0]);
    wake_slots.remove(&together[2]);
    assert!(wake_slots.is_empty());
}
