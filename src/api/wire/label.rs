//! Labels as the API shows them, as items of lists and as specs.

use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};

use super::campaign::or_default;
use super::time::ZERO;
use crate::catalog::State;
use crate::catalog::entity::{Label, Membership};
use crate::results::LabelId;

/// A label with the number of its members that somebody may see.
#[derive(Serialize)]
pub(crate) struct LabelOut {
    created_at: &'static str,
    updated_at: &'static str,
    id: LabelId,
    name: String,
    description: String,
    query: String,
    platform: String,
    label_type: &'static str,
    label_membership_type: Membership,
    display_text: String,
    count: u64,
    host_count: u64,
}

impl LabelOut {
    /// The label, counting members among the visible hosts.
    #[must_use]
    pub(crate) fn of(label: &Label, state: &State, visible: &RoaringBitmap) -> Self {
        let count = state.members(label).intersection_len(visible);
        Self {
            created_at: ZERO,
            updated_at: ZERO,
            id: label.id,
            name: label.name.clone(),
            description: label.description.clone(),
            query: label.query.clone(),
            platform: label.platform.clone(),
            label_type: label_type(label),
            label_membership_type: label.membership,
            display_text: label.name.clone(),
            count,
            host_count: count,
        }
    }
}

/// The word for who made a label.
#[must_use]
pub(crate) const fn label_type(label: &Label) -> &'static str {
    if label.builtin { "builtin" } else { "regular" }
}

/// A label's spec as it is given out.
#[derive(Serialize)]
pub(crate) struct LabelSpecOut<'a> {
    id: LabelId,
    name: &'a str,
    description: &'a str,
    query: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    platform: &'a str,
    label_type: &'static str,
    label_membership_type: Membership,
    #[serde(skip_serializing_if = "Option::is_none")]
    hosts: Option<Vec<&'a String>>,
}

impl<'a> LabelSpecOut<'a> {
    /// The label's spec, with those names of its hosts that lead to visible ones, or to none when all are visible.
    #[must_use]
    pub(crate) fn of(label: &'a Label, state: &State, visible: &RoaringBitmap) -> Self {
        let sees_all = visible.len() == state.hosts.all().len();
        let sees = |name: &&String| {
            sees_all
                || state
                    .hosts
                    .named(name)
                    .iter()
                    .any(|id| visible.contains(id.0))
        };
        let is_manual = label.membership == Membership::Manual;
        Self {
            id: label.id,
            name: &label.name,
            description: &label.description,
            query: &label.query,
            platform: &label.platform,
            label_type: label_type(label),
            label_membership_type: label.membership,
            hosts: is_manual.then(|| label.hosts.iter().filter(sees).collect()),
        }
    }
}

/// A label's spec as it is taken. Its number does not count: names identify.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct LabelSpecIn {
    /// Its name.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// For people.
    #[serde(default, deserialize_with = "or_default")]
    pub description: String,
    /// SQL of a dynamic label.
    #[serde(default, deserialize_with = "or_default")]
    pub query: String,
    /// osquery's platform.
    #[serde(default, deserialize_with = "or_default")]
    pub platform: String,
    /// `regular` or `builtin`.
    #[serde(default)]
    pub label_type: Option<String>,
    /// `dynamic` or `manual`.
    #[serde(default)]
    pub label_membership_type: Option<String>,
    /// Host names of a manual label.
    #[serde(default)]
    pub hosts: Option<Vec<String>>,
}
