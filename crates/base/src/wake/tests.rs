//! Rings, places in a wake group, and many wake slots notified a few at a time.

use futures_util::FutureExt;
use futures_util::task::noop_waker;
use tokio_util::task::TaskTracker;

use super::*;

#[tokio::test]
async fn rings_before_anyone_listens_count_as_one() {
    let bell = WakeSlot::default();
    bell.notify();
    bell.clone().notify();
    bell.rung().await;
    assert_eq!(bell.rung().now_or_never(), None);
}

#[tokio::test]
async fn a_ring_wakes_the_driver_that_waits() {
    let bell = WakeSlot::default();
    let driver = TaskTracker::new().spawn({
        let bell = bell.clone();
        async move { bell.rung().await }
    });
    tokio::task::yield_now().await;
    bell.notify();
    driver.await.unwrap();
}

#[test]
fn the_driver_of_a_belfry_hears_which_of_its_bells_were_rung() {
    let belfry = WakeGroup::default();
    let bells: Vec<WakeSlot> = (0..63).map(|_| belfry.hang().unwrap()).collect();
    assert!(belfry.hang().is_none(), "there are 63 places");
    let numbers: Vec<u32> = bells.iter().map(WakeSlot::number).collect();
    assert_eq!(numbers, (0..63).collect::<Vec<_>>());

    bells[3].notify();
    Waker::from(Arc::new(bells[62].clone())).wake();
    assert_eq!(belfry.take(), 1 << 3 | 1 << 62);
    assert_eq!(belfry.take(), 0);

    bells[5].notify();
    bells[6].notify();
    assert!(bells[5].take() && !bells[5].take());
    assert_eq!(belfry.take(), 1 << 6, "what another bell takes is its own");
}

#[test]
fn a_place_is_free_when_the_last_clone_has_gone_and_a_closed_belfry_has_none() {
    let belfry = WakeGroup::default();
    let (first, second) = (belfry.hang().unwrap(), belfry.hang().unwrap());
    let again = first.clone();
    drop(first);
    assert_eq!(belfry.hang().unwrap().number(), 2);
    drop(again);
    let reused = belfry.hang().unwrap();
    assert_eq!((reused.number(), belfry.bells()), (0, 2));
    assert!(!belfry.close());
    drop((second, reused));
    assert!(belfry.close());
    assert!(belfry.hang().is_none());
}

#[tokio::test]
async fn the_driver_is_woken_when_the_last_bell_is_gone() {
    let belfry = WakeGroup::default();
    let bell = belfry.hang().unwrap();
    let driver = TaskTracker::new().spawn(poll_fn(move |context| {
        belfry.listen(context);
        match belfry.close() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }));
    tokio::task::yield_now().await;
    drop(bell);
    driver.await.unwrap();
}

#[test]
fn a_full_belfry_counts_as_many_as_hang_there() {
    let belfry = WakeGroup::default();
    let (alone, mut bells) = (WakeSlot::default(), WakeSlots::default());
    bells.add(&alone);
    let together: Vec<WakeSlot> = std::iter::from_fn(|| belfry.hang()).collect();
    together.iter().for_each(|bell| bells.add(bell));
    assert_eq!(bells.notify_some(usize::MAX, 63), 1);
    assert!(!alone.take() && belfry.take() == (1 << 63) - 1);
}

#[test]
fn many_bells_are_rung_a_few_at_a_time_and_those_of_a_belfry_together() {
    let belfry = WakeGroup::default();
    belfry.listen(&mut Context::from_waker(&noop_waker()));
    let together: Vec<WakeSlot> = (0..3).map(|_| belfry.hang().unwrap()).collect();
    let alone = [WakeSlot::default(), WakeSlot::default()];
    let mut bells = WakeSlots::default();
    bells.add(&alone[0]);
    together.iter().for_each(|bell| bells.add(bell));
    bells.add(&together[0]);
    bells.add(&alone[1]);
    assert_eq!(bells.len(), 5);

    let left = bells.notify_some(usize::MAX, 2);
    assert_eq!(left, 1);
    assert_eq!(belfry.take(), 0b111);
    assert!(alone[1].take() && !alone[0].take());
    assert_eq!(bells.notify_some(left, 2), 0);
    assert!(alone[0].take());

    bells.remove(&together[1]);
    bells.remove(&together[1]);
    bells.remove(&alone[1]);
    assert_eq!(bells.len(), 3);
    assert_eq!(bells.notify_some(usize::MAX, usize::MAX), 0);
    assert_eq!(belfry.take(), 0b101);
    assert!(alone[0].take() && !alone[1].take());
    bells.remove(&alone[0]);
    bells.remove(&together[0]);
    bells.remove(&together[2]);
    assert!(bells.is_empty());
}
