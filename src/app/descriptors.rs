//! File descriptors: as many as the system allows, and some kept for files, the store and other nodes.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::limits::CONNECTIONS;

/// Not for connections: the catalog, logs, Redis, relays to other nodes. A quarter of all, and no more than this.
const KEPT_MAX: u64 = 1024;
/// Beside the files of campaigns, at least.
const KEPT_MIN: u64 = 64;

/// Raises the soft limit to the hard one, and says how many of `wanted` connections there can be beside the files of so many
/// campaigns.
pub(super) fn connections(wanted: usize, campaigns: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let limit = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(fault) => {
            tracing::warn!(%fault, "the soft limit of file descriptors cannot be raised");
            limit.current
        }
    };
    let possible = limit.map_or(usize::MAX, |limit| room(limit, campaigns));
    // Nobody who has asked for no number misses some of the default's.
    if possible < wanted && wanted != CONNECTIONS {
        tracing::warn!(
            wanted,
            possible,
            "fewer connections than --connections says: raise the limit of file descriptors (LimitNOFILE= in a unit \
             file, `ulimit -Hn` in a shell)"
        );
    } else if possible < wanted {
        tracing::info!(
            possible,
            "connections are bounded by the limit of file descriptors"
        );
    }
    wanted.min(possible)
}

/// Connections that fit beside what is kept.
fn room(descriptors: u64, campaigns: usize) -> usize {
    let files = KEPT_MIN.saturating_add(campaigns as u64);
    let kept = (descriptors / 4)
        .min(KEPT_MAX)
        .max(files)
        .min(descriptors / 2);
    usize::try_from(descriptors - kept).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_descriptors_are_not_for_connections() {
        assert_eq!(room(1024, 100), 768);
        assert_eq!(room(1024, 300), 660);
        assert_eq!(room(64, 100), 32);
        assert_eq!(room(1_048_576, 100), 1_047_552);
        assert_eq!(room(1_048_576, 10_000), 1_038_512);
        assert_eq!(room(0, 100), 0);
    }
}
