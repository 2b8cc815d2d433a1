//! What hosts with orbit ask beside osquery's own routes: enough that they do not fail, and nothing to do.

use std::net::IpAddr;

use warp::reply::Response;

use super::Agents;
use super::http::{Refusal, reply};
use super::route::Orbit;
use super::wire::Body;
use super::wire::answer::json;
use crate::auth::agent;

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
