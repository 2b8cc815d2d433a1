//! Stored records: whatever a disk gives back is read or refused, and what is read is written as it was.

use answerback::catalog::entity::Entity;
use answerback::catalog::record::kind;

const KINDS: [&str; 12] = [
    kind::USER,
    kind::TOKEN,
    kind::ENROLL_SECRET,
    kind::QUERY,
    kind::PACK,
    kind::LABEL,
    kind::TEAM,
    kind::HOST,
    kind::ACTIVITY,
    kind::APP_CONFIG,
    kind::NAME,
    "unknown",
];

/// The first byte is the kind, the rest the value.
pub(crate) fn check(data: &[u8]) {
    let Some((first, value)) = data.split_first() else {
        return;
    };
    let kind = KINDS[usize::from(*first) % KINDS.len()];
    let Ok(Some(entity)) = Entity::parse(kind, "7", value) else {
        return;
    };
    assert_eq!(entity.kind(), kind);
    let written = entity.value();
    let again = Entity::parse(kind, &entity.key(), &written);
    let again = again.ok().flatten().map(|again| again.value());
    assert_eq!(again, Some(written));
}
