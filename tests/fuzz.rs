//! The seeds of the fuzz targets replayed, and some thousand mutations of them, without a fuzzer.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

use std::path::Path;

#[path = "../fuzz/targets/agent.rs"]
mod agent;
#[path = "../fuzz/targets/frames.rs"]
mod frames;
#[path = "../fuzz/targets/inbound.rs"]
mod inbound;
#[path = "../fuzz/targets/payload.rs"]
mod payload;
#[path = "../fuzz/targets/record.rs"]
mod record;
#[path = "../fuzz/targets/session.rs"]
mod session;
#[path = "../fuzz/targets/viewer.rs"]
mod viewer;

/// Mutations of each seed: many more in the long run.
fn mutations() -> usize {
    if std::env::var_os("ANSWERBACK_LONG").is_some() {
        50_000
    } else {
        200
    }
}

/// A small generator of numbers that are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let mixed = usize::try_from((mixed ^ (mixed >> 31)) >> 1).unwrap();
        mixed % bound.max(1)
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap()
    }

    /// Flips, puts in, takes out, or joins.
    fn mutate(&mut self, input: &mut Vec<u8>, other: &[u8]) {
        let at = self.below(input.len() + 1);
        match self.below(4) {
            0 if at < input.len() => input[at] = self.byte(),
            1 => input.insert(at, self.byte()),
            2 => input.truncate(at),
            _ => {
                input.truncate(at);
                input.extend_from_slice(&other[self.below(other.len() + 1)..]);
            }
        }
    }
}

fn replay(target: &str, check: fn(&[u8])) {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let files = std::fs::read_dir(seeds.join(target)).unwrap();
    let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    let inputs: Vec<Vec<u8>> = paths
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect();
    assert!(inputs.len() >= 3, "{target} has seeds");
    let mut numbers = Numbers(0);
    for input in &inputs {
        check(input);
        for _ in 0..mutations() {
            let mut mutant = input.clone();
            for _ in 0..=numbers.below(4) {
                let other = numbers.below(inputs.len());
                numbers.mutate(&mut mutant, &inputs[other]);
            }
            check(&mutant);
        }
    }
}

#[test]
fn frames_of_any_kind_are_read_or_refused() {
    replay("frames", frames::check);
}

#[test]
fn bodies_and_paths_of_any_kind_are_read_or_refused() {
    replay("inbound", inbound::check);
}

#[test]
fn payloads_of_any_kind_are_read_back() {
    replay("payload", payload::check);
}

#[test]
fn a_session_keeps_its_promises_in_any_order_of_events() {
    replay("session", session::check);
}

#[test]
fn a_viewer_hears_what_it_may_in_any_order_of_events() {
    replay("viewer", viewer::check);
}

#[test]
fn agents() {
    replay("agent", agent::check);
}

#[test]
fn records() {
    replay("record", record::check);
}
