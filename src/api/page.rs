//! Which part of a list a request asks for, and in which order.

use std::cmp::Ordering;

use serde::Serialize;

use super::call::Call;
use super::error::ApiError;

/// The most entries of one answer, and how many there are unless the request says: scripts written for Fleet
/// expect a whole list.
pub(super) const PER_PAGE_MAX: u64 = 10_000;

/// A part of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Page {
    /// From 0.
    pub number: u64,
    /// At most so many entries.
    pub size: u64,
}

/// Whether there is more before and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Meta {
    has_next_results: bool,
    has_previous_results: bool,
}

impl Page {
    /// The part that a request asks for.
    ///
    /// # Errors
    /// 400 for what is no number from 0, or a page that is too large.
    pub(super) fn of(call: &Call) -> Result<Self, ApiError> {
        let number = call.asked_number("page")?.unwrap_or(0);
        let size = call.asked_number("per_page")?.unwrap_or(PER_PAGE_MAX);
        if size > PER_PAGE_MAX {
            let reason = format!("per_page must not be more than {PER_PAGE_MAX}");
            return Err(ApiError::BadRequest(reason));
        }
        // Fleet takes 0 for "not given".
        let size = if size == 0 { PER_PAGE_MAX } else { size };
        Ok(Self { number, size })
    }

    /// The place of its first entry.
    #[must_use]
    pub(super) const fn start(self) -> u64 {
        self.number.saturating_mul(self.size)
    }

    /// The place behind its last entry.
    #[must_use]
    pub(super) const fn end(self) -> u64 {
        self.start().saturating_add(self.size)
    }

    /// What there is around it, in a list of so many entries.
    #[must_use]
    pub(super) const fn meta(self, total: u64) -> Meta {
        Meta {
            has_next_results: self.end() < total,
            has_previous_results: self.number > 0,
        }
    }

    /// Its part of a whole list.
    #[must_use]
    pub(super) fn cut<T>(self, list: Vec<T>) -> (Vec<T>, Meta) {
        let meta = self.meta(list.len() as u64);
        let start = usize::try_from(self.start()).unwrap_or(usize::MAX);
        let size = usize::try_from(self.size).unwrap_or(usize::MAX);
        (list.into_iter().skip(start).take(size).collect(), meta)
    }
}

/// A way to order a list, by name.
pub(super) type By<T> = (&'static str, fn(&T, &T) -> Ordering);

/// Orders a list as the request asks; as it is, if it does not ask.
///
/// # Errors
/// 400 for an order that the list does not have.
pub(super) fn order<T>(list: &mut [T], call: &Call, keys: &[By<T>]) -> Result<(), ApiError> {
    let descending = is_descending(call)?;
    let Some(key) = call.asked("order_key") else {
        if descending {
            list.reverse();
        }
        return Ok(());
    };
    let Some((_, by)) = keys.iter().find(|(name, _)| *name == key) else {
        let names: Vec<&str> = keys.iter().map(|(name, _)| *name).collect();
        return Err(unknown_key(key, &names));
    };
    list.sort_by(|one, other| {
        let order = by(one, other);
        if descending { order.reverse() } else { order }
    });
    Ok(())
}

/// Whether the request asks for the last first.
///
/// # Errors
/// 400 for a direction that is none.
pub(super) fn is_descending(call: &Call) -> Result<bool, ApiError> {
    match call.asked("order_direction") {
        None | Some("asc") => Ok(false),
        Some("desc") => Ok(true),
        Some(other) => Err(ApiError::BadRequest(format!(
            "order_direction must be asc or desc, and is {other:?}"
        ))),
    }
}

/// 400 for an order that a list does not have.
#[must_use]
pub(super) fn unknown_key(key: &str, known: &[&str]) -> ApiError {
    let known = known.join(", ");
    ApiError::BadRequest(format!("order_key must be one of {known}, and is {key:?}"))
}

/// Whether a text holds what the request searches for, without regard to case.
#[must_use]
pub(super) fn matches(call: &Call, texts: &[&str]) -> bool {
    let Some(wanted) = call.asked("query") else {
        return true;
    };
    let wanted = wanted.to_lowercase();
    texts
        .iter()
        .any(|text| text.to_lowercase().contains(&wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_cut_out_and_says_what_is_around_it() {
        let page = Page { number: 1, size: 3 };
        let (part, meta) = page.cut((0..7).collect());
        assert_eq!(part, [3, 4, 5]);
        assert!(meta.has_next_results && meta.has_previous_results);
        let last = Page { number: 2, size: 3 };
        let (part, meta) = last.cut((0..7).collect());
        assert_eq!((part, meta.has_next_results), (vec![6], false));
        let far = Page {
            number: u64::MAX,
            size: 10_000,
        };
        assert!(far.cut((0..7).collect()).0.is_empty());
    }
}
