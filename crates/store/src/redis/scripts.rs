//! The Lua scripts: what must be atomic within one hash slot.

use std::sync::LazyLock;

use redis::{Arg, Cmd};
use sha1::{Digest, Sha1};

/// A script and the name by which a server that has seen it knows it.
pub(super) struct Script {
    text: String,
    sha: String,
}

impl Script {
    fn new(parts: &[&str]) -> Self {
        let text = parts.concat();
        let sha = Sha1::digest(text.as_bytes())
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Self { text, sha }
    }

    /// A call with these keys; append the arguments. `EVALSHA` here and `EVAL` where a server does not know the script
    /// work on every server and managed offering, which functions do not.
    pub(super) fn call<K: AsRef<str>>(&self, keys: &[K]) -> Cmd {
        let mut cmd = redis::cmd("EVALSHA");
        cmd.arg(&self.sha).arg(keys.len());
        for key in keys {
            cmd.arg(key.as_ref());
        }
        cmd
    }

    /// The same call with the script's text instead of its name.
    pub(super) fn with_text(&self, call: &Cmd) -> Cmd {
        let mut cmd = redis::cmd("EVAL");
        cmd.arg(&self.text);
        for arg in call.args_iter().skip(2) {
            if let Arg::Simple(bytes) = arg {
                cmd.arg(bytes);
            }
        }
        cmd
    }
}

const CLOCK: &str = include_str!("lua/clock.lua");
const FINISH: &str = include_str!("lua/finish.lua");

macro_rules! scripts {
    ($($(#[$doc:meta])* $name:ident = $($part:expr),+;)*) => {
        $($(#[$doc])* pub(super) static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new(&[$($part),+]));)*
    };
}

scripts! {
    /// Adds answers to a campaign.
    APPEND = include_str!("lua/append.lua");
    /// Renews or takes a node's claim.
    CLAIM = CLOCK, include_str!("lua/claim.lua");
    /// Changes catalog records, all or none.
    COMMIT = include_str!("lua/commit.lua");
    /// Creates a campaign.
    CREATE = CLOCK, include_str!("lua/create.lua");
    /// Forgets a session if it is this node's.
    DROP_SESSION = include_str!("lua/drop_session.lua");
    /// Ends or forgets a campaign that is due.
    DUE = CLOCK, FINISH, include_str!("lua/due.lua");
    /// Ends a campaign.
    END = CLOCK, FINISH, include_str!("lua/end.lua");
    /// Counts the epoch up after a failover that lost answers.
    FORK = include_str!("lua/fork.lua");
    /// Decides whether a host gets the query.
    HAND_OUT = CLOCK, include_str!("lua/hand_out.lua");
    /// The catalog's revision, and whether records are gone.
    HEAD = include_str!("lua/head.lua");
    /// Says that a node is here, and lists all that are.
    NODES = include_str!("lua/nodes.lua");
    /// Lists the campaigns whose deadlines have passed.
    OVERDUE = CLOCK, include_str!("lua/overdue.lua");
    /// Completes a catalog that is written back.
    PUT_BACK = include_str!("lua/put_back.lua");
    /// Records which node holds a session.
    PUT_SESSION = include_str!("lua/put_session.lua");
    /// Gives up a node's claim.
    RELEASE = CLOCK, include_str!("lua/release.lua");
    /// Moves deadlines that nobody else has moved.
    RESCHEDULE = include_str!("lua/reschedule.lua");
    /// Merges last check-ins into one chunk.
    SEEN = include_str!("lua/seen.lua");
    /// Makes hand-outs not count.
    TAKE_BACK = include_str!("lua/take_back.lua");
    /// Takes hand-outs back that reached no host.
    LOSE = include_str!("lua/lose.lua");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_by_name_becomes_the_same_call_by_text() {
        let mut call = DROP_SESSION.call(&["key"]);
        call.arg("node");
        let text = DROP_SESSION.with_text(&call);
        let args: Vec<_> = text
            .args_iter()
            .map(|arg| match arg {
                Arg::Simple(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                _ => String::new(),
            })
            .collect();
        assert_eq!(args[0], "EVAL");
        assert!(args[1].starts_with("-- KEYS: session"));
        assert_eq!(args[2..], ["1", "key", "node"]);
    }
}
