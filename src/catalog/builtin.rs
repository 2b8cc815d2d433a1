//! What every catalog holds from its first start: the builtin labels, and a way in for agents.

use base64::Engine as _;

use super::entity::{EnrollSecret, Entity, Label, Membership};
use super::record::{LABELS_MOVED_BY, kind, secret_key};
use super::state::{ALL_HOSTS, name_of};
use super::{Catalog, CommitError, Edit, State};
use crate::clock::Timestamp;
use crate::results::LabelId;
use crate::store::StoreError;

/// Name, description, platform and query of each builtin label, in the order of their numbers. The queries tell
/// members from others by themselves; the platform only saves asking in vain.
const LABELS: [(&str, &str, &str, &str); 8] = [
    (ALL_HOSTS, "All hosts that have enrolled", "", "SELECT 1"),
    (
        "macOS",
        "All macOS hosts",
        "darwin",
        "SELECT 1 FROM os_version WHERE platform = 'darwin'",
    ),
    (
        "Ubuntu Linux",
        "All Ubuntu hosts",
        "ubuntu",
        "SELECT 1 FROM os_version WHERE platform = 'ubuntu'",
    ),
    (
        "CentOS Linux",
        "All CentOS hosts",
        "linux",
        "SELECT 1 FROM os_version WHERE platform = 'centos' OR name LIKE '%centos%'",
    ),
    (
        "MS Windows",
        "All Windows hosts",
        "windows",
        "SELECT 1 FROM os_version WHERE platform = 'windows'",
    ),
    (
        "Red Hat Linux",
        "All Red Hat Enterprise Linux hosts",
        "linux",
        "SELECT 1 FROM os_version WHERE name LIKE '%red hat%'",
    ),
    (
        "All Linux",
        "All Linux distributions",
        "linux",
        "SELECT 1 FROM os_version WHERE platform NOT IN ('darwin', 'windows', 'chrome', 'freebsd', 'ios', 'ipados')",
    ),
    (
        "chrome",
        "All ChromeOS hosts",
        "chrome",
        "SELECT 1 FROM os_version WHERE platform = 'chrome'",
    ),
];

/// The number of the first builtin label; the others follow (spec of the API, "Get labels spec").
const FIRST_LABEL: u32 = 1 + LABELS_MOVED_BY;
/// The first number that is free for other labels.
const FREE_LABELS: u64 = FIRST_LABEL as u64 + LABELS.len() as u64;
/// Remembers that labels have the numbers that they have in Fleet.
const LABELS_NUMBERED: &str = "bootstrap/label_numbers";
/// Remembers that the first enroll secret was made, so that an operator who removes all secrets gets no new one.
const FIRST_SECRET: &str = "bootstrap/enroll_secret";
/// Random bytes of the first enroll secret.
const SECRET_BYTES: usize = 24;
/// Nodes that start together try again so often; all but one find everything done.
const ROUNDS: usize = 3;

/// Why the catalog could not be furnished.
#[derive(Debug, thiserror::Error)]
pub enum FurnishError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system gave no entropy.
    #[error("no entropy for the first enroll secret")]
    Entropy,
    /// Others were faster, again and again.
    #[error("too many writers at once")]
    Contended,
}

/// The plan needs so many label numbers.
struct NeedsNumbers;

/// Makes the builtin labels that are missing, and once, if there is no enroll secret, the first one, which is
/// returned so that the operator can be told. Nodes that start together make everything once.
///
/// # Errors
/// See [`FurnishError`].
pub async fn furnish(catalog: &Catalog, now: Timestamp) -> Result<Option<String>, FurnishError> {
    labels(catalog).await?;
    let secret = new_secret()?;
    let made = catalog.commit(|state| {
        if state.named(FIRST_SECRET).is_some() {
            return Ok::<_, std::convert::Infallible>((Vec::new(), false));
        }
        let mut edits = vec![Edit::Create(Entity::Name(FIRST_SECRET.to_owned(), 1))];
        let first = state.secrets.is_empty();
        if first {
            edits.push(Edit::Create(Entity::EnrollSecret(EnrollSecret {
                secret: secret.clone(),
                team: None,
                created_at: now.secs(),
            })));
        }
        Ok((edits, first))
    });
    match made.await {
        Ok(first) => Ok(first.then_some(secret)),
        Err(CommitError::Store(error)) => Err(error.into()),
        Err(CommitError::Refused(_) | CommitError::Contended) => Err(FurnishError::Contended),
    }
}

/// Makes sure that agents may enroll with this secret. Other secrets stay.
///
/// # Errors
/// See [`FurnishError`].
pub async fn ensure_secret(
    catalog: &Catalog,
    secret: &str,
    now: Timestamp,
) -> Result<(), FurnishError> {
    let made = catalog.commit(|state| {
        if state.secrets.contains_key(&secret_key(None, secret)) {
            return Ok::<_, std::convert::Infallible>((Vec::new(), ()));
        }
        let secret = EnrollSecret {
            secret: secret.to_owned(),
            team: None,
            created_at: now.secs(),
        };
        Ok((vec![Edit::Overwrite(Entity::EnrollSecret(secret))], ()))
    });
    match made.await {
        Ok(()) => Ok(()),
        Err(CommitError::Store(error)) => Err(error.into()),
        Err(CommitError::Refused(_) | CommitError::Contended) => Err(FurnishError::Contended),
    }
}

async fn labels(catalog: &Catalog) -> Result<(), FurnishError> {
    if catalog.read().named(LABELS_NUMBERED).is_none() {
        number(catalog).await?;
    }
    for _ in 0..ROUNDS {
        let missing = missing(&catalog.read()).count();
        let first = match u32::try_from(missing) {
            Ok(0) => return Ok(()),
            Ok(count) => catalog.reserve(kind::LABEL, count).await?,
            Err(_) => return Err(FurnishError::Contended),
        };
        let made = catalog.commit(|state| {
            let labels: Vec<_> = self::missing(state).collect();
            if labels.len() > missing {
                return Err(NeedsNumbers);
            }
            let edits = labels.into_iter().zip(first..).flat_map(edits);
            Ok((edits.collect(), ()))
        });
        match made.await {
            Ok(()) => return Ok(()),
            Err(CommitError::Store(error)) => return Err(error.into()),
            Err(CommitError::Refused(NeedsNumbers) | CommitError::Contended) => {}
        }
    }
    Err(FurnishError::Contended)
}

/// Makes the builtin labels of a new catalog with their numbers, or moves the labels of an old one, once.
async fn number(catalog: &Catalog) -> Result<(), FurnishError> {
    // Numbers must be free before the labels that have them are there. More than needed is no harm.
    let next = catalog.reserve(kind::LABEL, 0).await?;
    let moved = if next == 1 {
        FREE_LABELS - next
    } else {
        u64::from(LABELS_MOVED_BY)
    };
    let moved = u32::try_from(moved).unwrap_or(u32::MAX);
    catalog.reserve(kind::LABEL, moved).await?;
    let made = catalog.commit(|state| {
        if state.named(LABELS_NUMBERED).is_some() {
            return Ok::<_, std::convert::Infallible>((Vec::new(), ()));
        }
        let mut edits = vec![Edit::Create(Entity::Name(LABELS_NUMBERED.to_owned(), 1))];
        if state.labels.is_empty() {
            let numbers = u64::from(FIRST_LABEL)..;
            edits.extend(LABELS.iter().zip(numbers).flat_map(self::edits));
        } else {
            edits.extend(moves(state));
        }
        Ok((edits, ()))
    });
    match made.await {
        Ok(()) => Ok(()),
        Err(CommitError::Store(error)) => Err(error.into()),
        Err(CommitError::Refused(_) | CommitError::Contended) => Err(FurnishError::Contended),
    }
}

/// Every label by its number of today, and the numbers that none has any more. Hosts' records are read with the new
/// numbers wherever they were written with the old ones.
fn moves(state: &State) -> Vec<Edit> {
    let mut edits = Vec::new();
    for id in state.labels.keys() {
        let is_taken =
            id.0 > LABELS_MOVED_BY && state.labels.contains_key(&LabelId(id.0 - LABELS_MOVED_BY));
        if !is_taken {
            edits.push(Edit::Delete(kind::LABEL, id.to_string()));
        }
    }
    for (label, _) in state.labels.values() {
        let mut label = Label::clone(label);
        label.id.0 += LABELS_MOVED_BY;
        let name = name_of(kind::LABEL, &label.name);
        edits.push(Edit::Overwrite(Entity::Name(name, u64::from(label.id.0))));
        edits.push(Edit::Overwrite(Entity::Label(label)));
    }
    edits
}

type Row = &'static (&'static str, &'static str, &'static str, &'static str);

/// The builtin labels that there are not. A label of the same name that somebody made keeps its name.
fn missing(state: &State) -> impl Iterator<Item = Row> {
    LABELS
        .iter()
        .filter(|(name, ..)| state.label(name).is_none())
}

fn edits((row, number): (Row, u64)) -> [Edit; 2] {
    let (name, description, platform, query) = *row;
    let label = Label {
        id: LabelId(u32::try_from(number).unwrap_or(u32::MAX)),
        name: name.to_owned(),
        description: description.to_owned(),
        query: query.to_owned(),
        platform: platform.to_owned(),
        builtin: true,
        membership: Membership::Dynamic,
        hosts: Vec::new(),
    };
    let unique = Entity::Name(name_of(kind::LABEL, name), number);
    [Edit::Create(Entity::Label(label)), Edit::Create(unique)]
}

fn new_secret() -> Result<String, FurnishError> {
    let mut bytes = [0; SECRET_BYTES];
    getrandom::fill(&mut bytes).map_err(|_| FurnishError::Entropy)?;
    Ok(base64::engine::general_purpose::STANDARD.encode(bytes))
}

#[cfg(test)]
#[path = "numbering_tests.rs"]
mod tests;
