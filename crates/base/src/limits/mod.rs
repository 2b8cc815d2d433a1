//! The bounds that modules share, in one place, and the two ways of keeping to them: rates and permits.
//!
//! What a stranger can make grow has a bound here or beside its owner. These are defaults: where an
//! operator may move one, `config` says so.

pub mod account;
pub mod permits;
pub mod rate;

use std::num::NonZeroU32;
use std::time::Duration;

use rate::Allowance;

/// Connections alive at once, unless `--connections` says otherwise.
pub const CONNECTIONS: usize = 50_000;

/// A message from a viewer, in bytes. Selecting a campaign takes under 200.
pub const VIEWER_MESSAGE_BYTES: usize = 64 * 1024;

/// From a viewer's connecting to its token. Clients send it at once.
pub const VIEWER_AUTH_WITHIN: Duration = Duration::from_secs(10);

/// From a viewer's connecting to its choice of a campaign: as long as an unwatched campaign lives, so that whoever
/// connects first and then starts a campaign is in time as well.
pub const VIEWER_SELECT_WITHIN: Duration = Duration::from_secs(60);

/// The body of an agent's request, in bytes, as sent and as inflated each. osquery sends the rows of
/// all its queries in one `distributed/write` (spec of the agents' wire).
pub const AGENT_BODY_BYTES: usize = 16 * 1024 * 1024;

/// How much is read of an agent's body that is longer than [`AGENT_BODY_BYTES`], to take what fits of it and to record
/// why the rest was not taken, in bytes as sent and as inflated each. osquery gives up on a request after 16 s.
pub const AGENT_BODY_READ_BYTES: u64 = 512 * 1024 * 1024;

/// Queries of an agent's body that are looked at, of answers and of statuses each. A host is asked a few at a time, and
/// at most every dynamic label at once.
pub const AGENT_QUERIES: usize = 16 * 1024;

/// The body of an agent's check-in, enrolment or request for its config, in bytes. A host's details take a few kilobytes.
pub const AGENT_SHORT_BODY_BYTES: usize = 256 * 1024;

/// The body of a log-in, in bytes: an address and a password.
pub const LOGIN_BODY_BYTES: usize = 4 * 1024;

/// The body of most requests of the API, in bytes.
pub const API_BODY_BYTES: usize = 64 * 1024;

/// The body of a request that holds SQL or names hosts, in bytes: a hundred thousand numbers of hosts.
pub const API_HOSTS_BODY_BYTES: usize = 1024 * 1024;

/// The body of a request that applies specs, in bytes: ten thousand of them, or a hundred thousand names of hosts.
pub const API_SPECS_BODY_BYTES: usize = 8 * 1024 * 1024;

/// From a request's header to the last byte of its body, to which what has arrived adds, see [`BODY_RATE`].
pub const BODY_TIME: Duration = Duration::from_secs(15);

/// Bytes a second that a body arrives with at least, after [`BODY_TIME`]: a slow line delivers the largest answer in a
/// quarter of an hour, and who sends a byte now and then is done with soon.
pub const BODY_RATE: u64 = 16 * 1024;

/// Of a gzip body, in bytes: it is inflated only when it is whole or longer than this, because a decoder takes far more.
pub const GZIP_HELD_BYTES: usize = 16 * 1024;

/// What a gzip decoder takes, in bytes.
pub const GZIP_DECODER_BYTES: usize = 80 * 1024;

/// How many times as long as it was sent a body of more than [`AGENT_BODY_BYTES`] may become. Rows shrink to a
/// fiftieth; what shrinks to less than this was made to cost time.
pub const GZIP_RATIO: u64 = 200;

/// Bytes of a body that are not counted in the account of bodies, so that check-ins and most answers always pass. They
/// are bounded by the number of connections.
pub const BODY_FREE_BYTES: usize = 16 * 1024;

/// Memory that bodies of senders who have not said who they are take together, in bytes, until they are answered.
/// Agents that name themselves in their body are among these; six answers of the largest size fit at once.
pub const STRANGERS_BODIES_BYTES: usize = 192 * 1024 * 1024;

/// Memory that bodies of known hosts and users take together, in bytes, until they are answered.
pub const BODIES_BYTES: usize = 256 * 1024 * 1024;

/// Of [`BODIES_BYTES`], what one host or user may take: the largest answer.
pub const BODIES_BYTES_EACH: usize = 64 * 1024 * 1024;

/// Memory that the answers of synchronous live queries take together, in bytes, until they are sent.
pub const RESULTS_BYTES: usize = 384 * 1024 * 1024;

/// Of [`RESULTS_BYTES`], what one user may take: the largest request.
pub const RESULTS_BYTES_EACH: usize = 192 * 1024 * 1024;

/// Levels of nesting in JSON from outside. Nothing that is understood has more than six.
pub const JSON_DEPTH: usize = 32;

/// Keys that one rate limit remembers. An address or an account takes about 100 bytes.
pub const RATE_KEYS: usize = 100_000;

/// Viewers' sessions alive at once that one address has opened. Many may sit behind one proxy.
pub const SESSIONS_PER_ADDRESS: usize = 20_000;

/// New viewers' sessions of one address.
pub const SESSIONS_RATE: Allowance = per_second(1000, 1000);

/// Requests of one address for sessions that no node holds, beyond which the directory of sessions is not asked. A
/// client makes a few when a node has died.
pub const SESSION_MISSES_RATE: Allowance = per_second(20, 2000);

/// Campaigns of one user.
pub const CAMPAIGNS_RATE: Allowance = per_second(10, 100);

/// Campaigns of one user that run at once, unless `--campaigns` says otherwise.
pub const CAMPAIGNS_AT_ONCE: usize = 100;

/// A query, in bytes, unless `--sql-kib` says otherwise.
pub const SQL_BYTES: usize = 64 * 1024;

/// The queries of all dynamic labels together, in bytes: a host is asked all of them in one check-in.
pub const LABELS_SQL_BYTES: usize = 1024 * 1024;

/// Live queries that one check-in hands out, and their bytes, beyond which the host gets the others with its next one.
pub const CHECK_IN_QUERIES: usize = 32;
/// See [`CHECK_IN_QUERIES`]. A query that is longer goes alone.
pub const CHECK_IN_SQL_BYTES: usize = 256 * 1024;

/// Failed logins of one account from one address: ten at once, then one every six seconds.
pub const FAILED_LOGINS_RATE: Allowance = Allowance {
    burst: at_least_one(10),
    every: Duration::from_secs(6),
};

/// Failed logins of one address, and of one account, beyond which attempts are slowed: a site of many people behind one
/// address has as many typing errors.
pub const FAILED_LOGINS_OF_MANY_RATE: Allowance = per_second(1, 100);

/// Logins that are slowed at once, in all and for one account or address; more are told to come again. With two seconds
/// each, four guesses a second are left to whoever guesses from everywhere.
pub const SLOWED_LOGINS: usize = 64;
/// See [`SLOWED_LOGINS`].
pub const SLOWED_LOGINS_EACH: usize = 8;

/// Password hashes that wait for their turn; each takes 21 ms of a core.
pub const HASHES_WAITING: usize = 64;

/// Failed enrolments of one address. A wrong secret in a deployment makes a whole site fail.
pub const FAILED_ENROLMENTS_RATE: Allowance = per_second(5, 100);

/// Hosts that enroll with one good secret from one address, a second, unless `--enroll-rate` says otherwise: osquery
/// tries for eleven minutes.
pub const ENROLMENTS_PER_SECOND: u32 = 100;

/// Enrolments at once, in seconds of their rate: ten thousand by default, which is what most sites have.
const ENROLMENTS_BURST_S: u32 = 100;

/// So many a second, and so many at once after a rest.
#[must_use]
pub const fn enrolments(rate: u32) -> Allowance {
    per_second(rate, rate.saturating_mul(ENROLMENTS_BURST_S))
}

/// Hosts in all, unless `--hosts` says otherwise. A host takes about 1.5 KiB of memory.
pub const HOSTS: usize = 250_000;

/// Enrolments of one host: a few at once, since an answer may get lost, then one a minute.
pub const ENROLMENTS_OF_A_HOST: Allowance = Allowance {
    burst: at_least_one(5),
    every: Duration::from_secs(60),
};

/// KiB of osquery's log of one host: two of the largest bodies at once, then 64 KiB a second, which is 5 GB a day.
pub const LOG_KIB_OF_A_HOST: Allowance = per_second(64, 32 * 1024);

/// Answers of one host to campaigns that its node does not know as running. A host is asked a few queries at a time.
pub const STRANGE_ANSWERS: Allowance = per_second(1, 256);

/// Acts of agents that the audit trail takes in, of each kind: so many at once, then one a minute, lest they drive out
/// what people did.
pub const AGENTS_ACTS: Allowance = Allowance {
    burst: at_least_one(20),
    every: Duration::from_secs(60),
};

const fn per_second(rate: u32, burst: u32) -> Allowance {
    Allowance {
        burst: at_least_one(burst),
        every: Duration::from_nanos(1_000_000_000 / at_least_one(rate).get() as u64),
    }
}

const fn at_least_one(number: u32) -> NonZeroU32 {
    match NonZeroU32::new(number) {
        Some(number) => number,
        None => NonZeroU32::MIN,
    }
}
