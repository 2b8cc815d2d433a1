//! Tests of the reading of bodies.

use super::*;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::CONTENT_ENCODING;

type Parts = Vec<Result<Bytes, ()>>;

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

const fn somebody() -> Party {
    Party::Host(1)
}

async fn read_parts(
    encoding: Option<&str>,
    parts: Parts,
    limits: &Limits,
) -> Result<Bytes, BodyError> {
    let mut headers = HeaderMap::new();
    if let Some(encoding) = encoding {
        headers.insert(CONTENT_ENCODING, encoding.parse().unwrap());
    }
    read(
        &headers,
        futures_util::stream::iter(parts),
        limits,
        somebody,
    )
    .await
}

fn cut(bytes: &[u8], size: usize) -> Parts {
    bytes
        .chunks(size)
        .map(|part| Ok(Bytes::copy_from_slice(part)))
        .collect()
}

#[tokio::test]
async fn plain_bodies_are_bounded_to_the_byte() {
    let limits = Limits::of(10);
    assert_eq!(read_parts(None, vec![], &limits).await, Ok(Bytes::new()));
    let ten = read_parts(Some("identity"), cut(b"0123456789", 3), &limits).await;
    assert_eq!(ten, Ok(Bytes::from_static(b"0123456789")));
    let eleven = read_parts(None, cut(b"0123456789a", 3), &limits).await;
    assert_eq!(eleven, Err(BodyError::TooLarge));
    let broken = vec![Ok(Bytes::from_static(b"01")), Err(())];
    assert_eq!(
        read_parts(None, broken, &limits).await,
        Err(BodyError::Truncated)
    );
    let brotli = read_parts(Some("br"), cut(b"0123", 3), &limits).await;
    assert_eq!(brotli, Err(BodyError::Encoding));
}

#[tokio::test]
async fn gzip_is_inflated_however_it_is_cut() {
    let plain = b"answer,".repeat(1000);
    let sent = gzip(&plain);
    for size in [1, 7, sent.len()] {
        let read = read_parts(Some("GZip"), cut(&sent, size), &Limits::of(7000)).await;
        assert_eq!(read.as_deref(), Ok(plain.as_slice()));
    }
    let short = read_parts(Some("gzip"), cut(&sent, 9), &Limits::of(6999)).await;
    assert_eq!(short, Err(BodyError::TooLarge));
}

#[tokio::test]
async fn a_bomb_is_refused_and_never_unpacked() {
    let bomb = gzip(&vec![0; 100 << 20]);
    let limits = Limits::of(1 << 20);
    assert!(bomb.len() < limits.bytes);
    let read = read_parts(Some("gzip"), cut(&bomb, 4096), &limits).await;
    assert_eq!(read, Err(BodyError::TooLarge));
}

#[tokio::test]
async fn damaged_and_cut_gzip_is_broken() {
    let sent = gzip(b"answer");
    let limits = Limits::of(100);
    for bytes in [&sent[..sent.len() - 3], &sent[..5], b"not gzip"] {
        let read = read_parts(Some("gzip"), cut(bytes, 4), &limits).await;
        assert_eq!(read, Err(BodyError::Broken), "{bytes:?}");
    }
}

fn small_account(free: usize) -> Limits {
    Limits {
        account: Account::new(15, 15, free),
        ..Limits::of(100)
    }
}

#[tokio::test]
async fn bodies_share_one_account_until_they_are_dropped() {
    let limits = small_account(0);
    let first = read_parts(None, cut(b"0123456789", 10), &limits).await;
    assert_eq!(limits.account.taken(), (0, 10));
    let busy = read_parts(None, cut(b"0123456789", 10), &limits).await;
    assert_eq!(busy, Err(BodyError::Busy));
    drop(first);
    assert_eq!(limits.account.taken(), (0, 0));
    assert!(
        read_parts(None, cut(b"0123456789", 10), &limits)
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_body_in_one_piece_needs_its_share_too_and_a_small_one_needs_none() {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_LENGTH, "10".parse().unwrap());
    for (free, outcome) in [
        (9, Err(BodyError::Busy)),
        (10, Ok(Bytes::from_static(b"0123456789"))),
    ] {
        let limits = small_account(free);
        let _others = limits.account.take(Party::User(7), 11).unwrap();
        let whole = futures_util::stream::iter(cut(b"0123456789", 10));
        assert_eq!(read(&headers, whole, &limits, somebody).await, outcome);
        assert_eq!(limits.account.taken(), (0, 11));
    }
}

#[tokio::test]
async fn parts_of_nothing_are_no_body() {
    let empty = gzip(b"").repeat(10_000);
    let read = read_parts(Some("gzip"), cut(&empty, 4096), &Limits::of(1 << 20)).await;
    assert_eq!(read, Err(BodyError::Broken));
    let some = gzip(&b"0123456789".repeat(5)).repeat(2_000);
    let read = read_parts(Some("gzip"), cut(&some, 4096), &Limits::of(1 << 20)).await;
    assert_eq!(read.map(|body| body.len()), Ok(100_000));
}

#[tokio::test(start_paused = true)]
async fn a_slow_body_has_the_time_that_its_rate_needs() {
    let body = |rate: usize| {
        let parts = futures_util::stream::unfold(0, move |sent| async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let part = Ok::<_, ()>(Bytes::from(vec![b'x'; rate]));
            (sent < 4 << 20).then_some((part, sent + rate))
        });
        async move {
            let limits = Limits::of(16 << 20);
            read(&HeaderMap::new(), Box::pin(parts), &limits, somebody).await
        }
    };
    assert_eq!(
        body(20 << 10).await.map(|body| body.len()),
        Ok(205 * (20 << 10))
    );
    assert_eq!(body(1).await, Err(BodyError::Timeout));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_comes_times_out() {
    let stream = futures_util::stream::pending::<Result<Bytes, ()>>();
    let read = read(&HeaderMap::new(), stream, &Limits::of(10), somebody).await;
    assert_eq!(read, Err(BodyError::Timeout));
}
