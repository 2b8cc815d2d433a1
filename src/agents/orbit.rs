//! What hosts with orbit ask beside osquery's own routes: enough that they do not fail, and nothing to do.

use std::net::IpAddr;

use http::Method;
use warp::reply::Response;

use super::Agents;
use super::http::{Refusal, reply};
use super::wire::Body;
use super::wire::answer::json;
use crate::auth::agent;

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

impl Agents {
    /// Answers orbit. Keys are made and not kept: what they open is the same for all.
    pub(super) fn orbit(
        &self,
        route: Orbit,
        text: &str,
        address: IpAddr,
    ) -> Result<Response, Refusal> {
        let body = Body::parse(text);
        match route {
            Orbit::Ping => Ok(reply("{}")),
            Orbit::Desktop => Ok(reply(
                r#"{"failing_policies_count":0,"self_service":false,"notifications":{}}"#,
            )),
            Orbit::Enroll => {
                if let Some(fault) = body.fault {
                    return Err(fault.into());
                }
                self.admit(&body, address)?;
                let key = agent::new_key().map_err(|_| Refusal::Entropy)?;
                Ok(reply(format!(r#"{{"orbit_node_key":{}}}"#, json(&key))))
            }
            Orbit::Config | Orbit::DeviceToken => {
                let key = body.text("orbit_node_key").unwrap_or_default();
                if key.is_empty() || agent::hash(&key).is_none() {
                    return Err(Refusal::UnknownNode);
                }
                Ok(match route {
                    Orbit::Config => reply(r#"{"notifications":{}}"#),
                    _ => reply("{}"),
                })
            }
        }
    }
}
