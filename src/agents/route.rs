//! Which path and method lead to which route of the agents' face.

use http::Method;

use super::wire::sieve::Items;

/// A route of the face.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Enroll,
    Config,
    Read,
    Write,
    Log,
    Carve,
    Orbit(Orbit),
    Unknown,
}

impl Route {
    /// The route of a path; none if the path belongs to another face.
    pub(super) fn of(path: &str) -> Option<Self> {
        let below = |prefix| path.strip_prefix(prefix);
        let Some(name) = below("/api/osquery/").or_else(|| below("/api/v1/osquery/")) else {
            return Orbit::of(path).map(Self::Orbit);
        };
        Some(match name.strip_suffix('/').unwrap_or(name) {
            "distributed/read" => Self::Read,
            "distributed/write" => Self::Write,
            "enroll" => Self::Enroll,
            "config" => Self::Config,
            "log" => Self::Log,
            "carve/begin" | "carve/block" => Self::Carve,
            _ => Self::Unknown,
        })
    }

    /// The parts of a body that are kept one by one if it cannot be kept whole: of those bodies that an agent sends
    /// again until they are taken.
    pub(super) const fn items(self) -> Option<Items> {
        match self {
            Self::Write => Some(Items::Queries),
            Self::Log => Some(Items::Data),
            _ => None,
        }
    }
}

/// A route of orbit or of the device page that it opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Orbit {
    /// A secret for a key.
    Enroll,
    /// Whether the server is there.
    Ping,
    /// What orbit is to run; nothing.
    Config,
    /// The token by which a device's user is known; not kept.
    DeviceToken,
    /// What the device's menu shows.
    Desktop,
}

impl Orbit {
    /// The route of a path; none if it is not orbit's.
    pub(super) fn of(path: &str) -> Option<Self> {
        let rest = path.strip_prefix("/api/")?;
        let rest = ["v1/", "latest/", "2022-04/"]
            .iter()
            .find_map(|version| rest.strip_prefix(version))
            .unwrap_or(rest);
        let segments: Vec<&str> = rest.strip_prefix("fleet/")?.split('/').collect();
        match segments.as_slice() {
            ["orbit", "enroll"] => Some(Self::Enroll),
            ["orbit" | "device", "ping"] => Some(Self::Ping),
            ["orbit", "config"] => Some(Self::Config),
            ["orbit", "device_token"] => Some(Self::DeviceToken),
            ["device", token, "desktop"] if !token.is_empty() => Some(Self::Desktop),
            _ => None,
        }
    }

    /// The methods that it takes.
    pub(super) fn takes(self, method: &Method) -> bool {
        match self {
            Self::Ping | Self::Desktop => matches!(*method, Method::GET | Method::HEAD),
            Self::Enroll | Self::Config | Self::DeviceToken => *method == Method::POST,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_prefixes_lead_to_every_route_and_others_to_none() {
        assert_eq!(
            Route::of("/api/osquery/distributed/read"),
            Some(Route::Read)
        );
        assert_eq!(
            Route::of("/api/v1/osquery/distributed/write/"),
            Some(Route::Write)
        );
        assert_eq!(Route::of("/api/v1/osquery/enroll"), Some(Route::Enroll));
        assert_eq!(Route::of("/api/osquery/carve/block"), Some(Route::Carve));
        assert_eq!(Route::of("/api/osquery/"), Some(Route::Unknown));
        assert_eq!(Route::of("/api/osquery"), None);
        assert_eq!(Route::of("/api/v1/fleet/queries"), None);
    }
}
