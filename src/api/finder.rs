//! Finding hosts among very many: a filter, an order and a page, looked for in short strides.
//!
//! The catalog's lock is held for one stride at a time, and the task yields between strides: while somebody
//! searches 300,000 hosts, agents check in.

use std::borrow::Cow;
use std::collections::BinaryHeap;
use std::sync::Arc;

use roaring::RoaringBitmap;

use super::Api;
use super::call::Call;
use super::error::ApiError;
use super::page::{self, Page};
use crate::auth::{Action, Actor};
use crate::catalog::State;
use crate::catalog::entity::Host;
use crate::catalog::presence::Presence;
use crate::clock::Timestamp;
use crate::results::{HostId, LabelId, TeamId};

/// Hosts looked at under one lock.
const STRIDE: usize = 4096;

/// The parameters of host lists beside those of every list.
pub(super) const ASKS: &[&str] = &[
    "page",
    "per_page",
    "order_key: id|hostname|display_name|computer_name|uuid|platform|os_version|osquery_version|primary_ip|team_id|created_at|seen_time",
    "order_direction",
    "query",
    "status",
    "team_id",
    "label_id",
    "label",
];

/// What hosts may be ordered by.
const KEYS: [&str; 12] = [
    "id",
    "hostname",
    "display_name",
    "computer_name",
    "uuid",
    "platform",
    "os_version",
    "osquery_version",
    "primary_ip",
    "team_id",
    "created_at",
    "seen_time",
];

/// What a host is ordered by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key<'a> {
    Number(u64),
    Text(Cow<'a, str>),
}

/// One of the best so far; the heap's top is the worst of them.
#[derive(Debug, PartialEq, Eq)]
struct Candidate {
    key: Key<'static>,
    id: u32,
    descending: bool,
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let order = (&self.key, self.id).cmp(&(&other.key, other.id));
        if self.descending {
            order.reverse()
        } else {
            order
        }
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// What a request looks for.
#[derive(Debug)]
pub(super) struct Wanted {
    text: Option<String>,
    key: &'static str,
    descending: bool,
}

impl Wanted {
    /// The text and the order of a request.
    ///
    /// # Errors
    /// 400 for an order that hosts do not have.
    pub(super) fn of(call: &Call) -> Result<Self, ApiError> {
        let asked = call.asked("order_key").unwrap_or("id");
        let key = KEYS.iter().find(|key| **key == asked);
        Ok(Self {
            text: call.asked("query").map(str::to_lowercase),
            key: key.ok_or_else(|| page::unknown_key(asked, &KEYS))?,
            descending: page::is_descending(call)?,
        })
    }

    /// A text alone, in the order of numbers.
    #[must_use]
    pub(super) fn text(text: &str) -> Self {
        Self {
            text: Some(text.to_lowercase()).filter(|text| !text.is_empty()),
            key: "id",
            descending: false,
        }
    }

    fn fits(&self, host: &Host) -> bool {
        let Some(text) = &self.text else {
            return true;
        };
        let details = &host.details;
        [
            &details.hostname,
            &details.computer_name,
            &details.uuid,
            &details.hardware_serial,
            &details.primary_ip,
            &host.identifier,
        ]
        .into_iter()
        .any(|field| contains(field, text))
    }
}

/// The hosts that the actor may see and the request's filters leave: team, label, presence. Not the text.
///
/// # Errors
/// 400 for filters that make no sense, 404 for a label or team that is not there or not to be seen.
pub(super) fn filtered(api: &Api, actor: &Actor, call: &Call) -> Result<RoaringBitmap, ApiError> {
    let catalog = &api.parts.catalog;
    let state = catalog.read();
    let mut set = actor.hosts(Action::See, &state);
    if let Some(team) = call.asked_number("team_id")? {
        let team = TeamId(u32::try_from(team).unwrap_or(u32::MAX));
        let known = team.0 == 0 || state.teams.contains_key(&team);
        if !known || (team.0 != 0 && !actor.may_in(Action::See, Some(team))) {
            return Err(ApiError::not_found(format_args!("Team {team}")));
        }
        set &= state.hosts.of_team(team).cloned().unwrap_or_default();
    }
    if let Some(label) = call.asked_number("label_id")? {
        let id = LabelId(u32::try_from(label).unwrap_or(0));
        let label = state.labels.get(&id).map(|(label, _)| label);
        let label = label.ok_or_else(|| ApiError::not_found(format_args!("Label {id}")))?;
        set &= state.members(label);
    }
    if let Some(name) = call.asked("label") {
        let label = state.label(name);
        let label = label.ok_or_else(|| ApiError::not_found(format_args!("Label {name:?}")))?;
        set &= state.members(label);
    }
    drop(state);
    match call.asked("status") {
        None => Ok(set),
        Some(status) => of_status(set, status, catalog.presence(), call.now),
    }
}

fn of_status(
    set: RoaringBitmap,
    status: &str,
    presence: &Presence,
    now: Timestamp,
) -> Result<RoaringBitmap, ApiError> {
    match status {
        "online" => Ok(presence.online(&set, now)),
        "offline" => Ok(&set - presence.online(&set, now)),
        "mia" | "missing" | "new" => {
            let counts = |host: &u32| presence.count(&RoaringBitmap::from([*host]), now);
            let wanted = |host: &u32| match status {
                "new" => counts(host).new > 0,
                _ => counts(host).missing_in_action > 0,
            };
            Ok(set.iter().filter(wanted).collect())
        }
        other => Err(ApiError::BadRequest(format!(
            "status must be online, offline, mia or new, and is {other:?}"
        ))),
    }
}

/// How many of a set fit.
pub(super) async fn count(api: &Api, set: &RoaringBitmap, wanted: &Wanted) -> u64 {
    if wanted.text.is_none() {
        return set.len();
    }
    let mut count = 0;
    stride(api, set, |_, host| {
        count += u64::from(wanted.fits(host));
        true
    })
    .await;
    count
}

/// One page of those of a set that fit, in order, and whether there are more.
pub(super) async fn find(
    api: &Api,
    set: &RoaringBitmap,
    wanted: &Wanted,
    page: Page,
) -> (Vec<Arc<Host>>, page::Meta) {
    let ids = match (&wanted.text, wanted.key) {
        (None, "id") => by_rank(set, wanted.descending, page),
        (_, "id") if !wanted.descending => first(api, set, wanted, page).await,
        _ => best(api, set, wanted, page).await,
    };
    let found = page.start().saturating_add(ids.len() as u64);
    let size = usize::try_from(page.size).unwrap_or(usize::MAX);
    let state = api.parts.catalog.read();
    let hosts = ids.iter().take(size);
    let hosts = hosts.filter_map(|id| state.hosts.get(HostId(*id)).cloned());
    (hosts.collect(), page.meta(found))
}

/// All fit, in the order of their numbers: the place says which. One more than the page holds.
fn by_rank(set: &RoaringBitmap, descending: bool, page: Page) -> Vec<u32> {
    let size = usize::try_from(page.size.saturating_add(1)).unwrap_or(usize::MAX);
    let total = set.len();
    if page.start() >= total {
        return Vec::new();
    }
    let rank = if descending {
        total - 1 - page.start()
    } else {
        page.start()
    };
    let Some(start) = u32::try_from(rank).ok().and_then(|rank| set.select(rank)) else {
        return Vec::new();
    };
    if descending {
        set.range(..=start).rev().take(size).collect()
    } else {
        set.range(start..).take(size).collect()
    }
}

/// The first that fit in the order of their numbers; stops as soon as there are enough.
async fn first(api: &Api, set: &RoaringBitmap, wanted: &Wanted, page: Page) -> Vec<u32> {
    let mut place = 0;
    let mut found = Vec::new();
    stride(api, set, |_, host| {
        if wanted.fits(host) {
            if place >= page.start() {
                found.push(host.id.0);
            }
            place += 1;
        }
        place <= page.end()
    })
    .await;
    found
}

/// The best by the order's key: looks at all, keeps no more than a page needs.
async fn best(api: &Api, set: &RoaringBitmap, wanted: &Wanted, page: Page) -> Vec<u32> {
    let presence = api.parts.catalog.presence();
    let keep = usize::try_from(page.end().saturating_add(1)).unwrap_or(usize::MAX);
    let mut heap: BinaryHeap<Candidate> = BinaryHeap::new();
    stride(api, set, |_, host| {
        if !wanted.fits(host) {
            return true;
        }
        let key = key_of(host, wanted.key, presence);
        if heap.len() >= keep {
            let worse = heap.peek().is_some_and(|worst| {
                let order = (&key, host.id.0).cmp(&(&worst.key, worst.id));
                if wanted.descending {
                    order.is_lt()
                } else {
                    order.is_gt()
                }
            });
            if worse {
                return true;
            }
            heap.pop();
        }
        heap.push(Candidate {
            key: key.into_owned(),
            id: host.id.0,
            descending: wanted.descending,
        });
        true
    })
    .await;
    let start = usize::try_from(page.start()).unwrap_or(usize::MAX);
    let sorted = heap.into_sorted_vec().into_iter();
    sorted.skip(start).map(|candidate| candidate.id).collect()
}

/// Shows every host of a set to `look`, until it has seen enough and says false.
async fn stride(api: &Api, set: &RoaringBitmap, mut look: impl FnMut(&State, &Host) -> bool) {
    let mut ids = set.iter();
    loop {
        let chunk: Vec<u32> = ids.by_ref().take(STRIDE).collect();
        if chunk.is_empty() {
            return;
        }
        {
            let state = api.parts.catalog.read();
            for id in chunk {
                if let Some(host) = state.hosts.get(HostId(id))
                    && !look(&state, host)
                {
                    return;
                }
            }
        }
        tokio::task::yield_now().await;
    }
}

fn key_of<'a>(host: &'a Host, key: &str, presence: &Presence) -> Key<'a> {
    let details = &host.details;
    let text = match key {
        "hostname" => host.hostname(),
        "display_name" => host.display_name(),
        "computer_name" => &details.computer_name,
        "uuid" => &details.uuid,
        "platform" => &details.platform,
        "os_version" => &details.os_version,
        "osquery_version" => &details.osquery_version,
        "primary_ip" => &details.primary_ip,
        "team_id" => return Key::Number(u64::from(host.team.unwrap_or_default().0)),
        "created_at" => return Key::Number(host.enrolled_at),
        "seen_time" => {
            let seen = presence.seen(host.id).map_or(0, Timestamp::secs);
            return Key::Number(seen.max(host.enrolled_at));
        }
        _ => return Key::Number(u64::from(host.id.0)),
    };
    Key::Text(Cow::Borrowed(text))
}

impl Key<'_> {
    fn into_owned(self) -> Key<'static> {
        match self {
            Key::Number(number) => Key::Number(number),
            Key::Text(text) => Key::Text(Cow::Owned(text.into_owned())),
        }
    }
}

/// Whether a text holds another that is in lower case; without regard to case, and without a copy for ASCII.
fn contains(text: &str, lower: &str) -> bool {
    if !text.is_ascii() || !lower.is_ascii() {
        return text.to_lowercase().contains(lower);
    }
    let (text, lower) = (text.as_bytes(), lower.as_bytes());
    let Some(last) = text.len().checked_sub(lower.len()) else {
        return false;
    };
    (0..=last).any(|at| text[at..at + lower.len()].eq_ignore_ascii_case(lower))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_found_without_regard_to_case() {
        assert!(contains("Web-01.Example.ORG", "example.o"));
        assert!(contains("ÜBER-1", "über"));
        assert!(contains("abc", ""));
        assert!(!contains("ab", "abc"));
        assert!(!contains("web-1", "web-2"));
    }

    #[test]
    fn a_page_by_rank_is_the_page_of_the_sorted_list() {
        let set: RoaringBitmap = (1u32..100).step_by(3).collect();
        let page = Page { number: 2, size: 5 };
        let expected: Vec<u32> = set.iter().skip(10).take(6).collect();
        assert_eq!(by_rank(&set, false, page), expected);
        let expected: Vec<u32> = set.iter().rev().skip(10).take(6).collect();
        assert_eq!(by_rank(&set, true, page), expected);
        let beyond = Page {
            number: 1_000,
            size: 5,
        };
        assert!(by_rank(&set, false, beyond).is_empty());
    }
}
