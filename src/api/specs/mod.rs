//! Specs: documents that describe queries, packs, labels, teams and secrets whole, applied all or not at all.

pub(super) mod labels;
pub(super) mod packs;
pub(super) mod queries;
pub(super) mod secrets;
pub(super) mod teams;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::Api;
use super::call::{Call, object};
use super::error::{ApiError, Fault};
use super::wire::campaign::or_default;
use crate::store::Kind;
use crate::text::is_hidden;

/// Items of one document.
const SPECS_MAX: usize = 10_000;
/// Characters of a name; what Fleet's columns hold.
const NAME_CHARS_MAX: usize = 255;

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow, deserialize_with = "or_default")]
    specs: Vec<&'a RawValue>,
}

/// The items of a document `{"specs": [...]}`.
///
/// # Errors
/// 400 naming the item that is not of its shape, 422 for too many.
pub(super) fn items<T: DeserializeOwned>(call: &Call) -> Result<Vec<T>, ApiError> {
    call.text()?;
    object(&call.body)?;
    let document: Document<'_> =
        serde_json::from_slice(&call.body).map_err(|error| ApiError::Json(error.to_string()))?;
    if document.specs.len() > SPECS_MAX {
        let reason = format!("must not have more than {SPECS_MAX} items");
        return Err(ApiError::invalid("specs", reason));
    }
    let items = document.specs.iter().enumerate();
    items
        .map(|(at, item)| {
            let placed = |fault: String| ApiError::Json(format!("specs[{at}]: {fault}"));
            if !item.get().starts_with('{') {
                return Err(placed("expected an object".to_owned()));
            }
            serde_json::from_str(item.get()).map_err(|error| placed(error.to_string()))
        })
        .collect()
}

/// Numbers for things that a plan may make. A plan runs on a copy, since it may run again.
#[derive(Clone, Debug)]
pub(super) struct Numbers {
    next: u64,
    left: u64,
}

impl Numbers {
    /// Reserves so many numbers of a sequence.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn reserve(api: &Api, sequence: Kind, count: usize) -> Result<Self, ApiError> {
        let wanted = u32::try_from(count).unwrap_or(u32::MAX);
        let next = match wanted {
            0 => 0,
            _ => api.parts.catalog.reserve(sequence, wanted).await?,
        };
        Ok(Self {
            next,
            left: u64::from(wanted),
        })
    }

    /// The next number, for things counted in 32 bits.
    ///
    /// # Errors
    /// 503 if there is none left: others have deleted what was to be changed, and the request is worth repeating.
    pub(super) fn take(&mut self) -> Result<u32, ApiError> {
        let number = self.take_long()?;
        u32::try_from(number).map_err(|_| ApiError::Internal("numbers have run out".to_owned()))
    }

    /// The next number.
    ///
    /// # Errors
    /// As [`Numbers::take`].
    pub(super) fn take_long(&mut self) -> Result<u64, ApiError> {
        if self.left == 0 {
            let reason = "what the request changes was changed by others meanwhile";
            return Err(ApiError::Unavailable(reason.to_owned()));
        }
        self.left -= 1;
        self.next += 1;
        Ok(self.next - 1)
    }
}

/// What is wrong with a name, if anything.
#[must_use]
pub(super) fn name_fault(field: &str, name: &str) -> Option<Fault> {
    let reason = if name.trim().is_empty() {
        "must not be empty"
    } else if name.chars().count() > NAME_CHARS_MAX {
        "must not be longer than 255 characters"
    } else if name.chars().any(is_hidden) {
        "must not hold control characters or characters that do not show"
    } else {
        return None;
    };
    Some(Fault {
        name: field.to_owned(),
        reason: reason.to_owned(),
    })
}

/// A name that is one.
///
/// # Errors
/// 422.
pub(super) fn check_name(field: &str, name: &str) -> Result<(), ApiError> {
    name_fault(field, name).map_or(Ok(()), |fault| Err(ApiError::Invalid(vec![fault])))
}

/// Puts the item's place before each fault's field, and its name before the reason.
#[must_use]
pub(super) fn placed(at: usize, name: &str, faults: Vec<Fault>) -> Vec<Fault> {
    let faults = faults.into_iter();
    faults
        .map(|fault| Fault {
            name: format!("specs[{at}].{}", fault.name),
            reason: format!("{name:?}: {} {}", fault.name, fault.reason),
        })
        .collect()
}

/// That no query of the named specs is too long.
///
/// # Errors
/// 422.
pub(super) fn check_lengths<'a>(
    api: &Api,
    specs: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<(), ApiError> {
    let faults = specs.enumerate().flat_map(|(at, (name, sql))| {
        let fault = api.sql_fault("query", sql);
        placed(at, name, fault.into_iter().collect())
    });
    let faults: Vec<Fault> = faults.collect();
    if faults.is_empty() {
        Ok(())
    } else {
        Err(ApiError::Invalid(faults))
    }
}

/// The place of each name's last item: where a document has a name twice, the last one counts.
#[must_use]
pub(super) fn last_of_each<'a>(names: impl Iterator<Item = &'a str>) -> Vec<bool> {
    let names: Vec<&str> = names.collect();
    let mut seen = std::collections::HashSet::new();
    let mut counts: Vec<bool> = names.iter().rev().map(|name| seen.insert(*name)).collect();
    counts.reverse();
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_equal_names_counts() {
        let names = ["a", "b", "a", "c", "b"];
        assert_eq!(
            last_of_each(names.into_iter()),
            [false, false, true, true, true]
        );
    }

    #[test]
    fn names_may_hold_anything_but_nothing_and_control_characters() {
        for good in ["a/b", "\"q\"", "🐙", "x y", &"ä".repeat(255)] {
            assert_eq!(name_fault("name", good), None, "{good:?}");
        }
        for bad in ["", "  ", "a\nb", "\0", &"x".repeat(256)] {
            assert!(name_fault("name", bad).is_some(), "{bad:?}");
        }
    }
}
