//! Hosts as the API shows them.

use serde::Serialize;
use serde_json::Value;

use super::time::Rfc3339;
use crate::catalog::State;
use crate::catalog::entity::Host;
use crate::catalog::presence::Presence;
use crate::clock::Timestamp;
use crate::results::{HostId, TeamId};

/// A host. The moments are as Fleet names them; the uptime counts nanoseconds, as Go does.
#[derive(Serialize)]
pub(crate) struct HostOut<'a> {
    created_at: Rfc3339,
    updated_at: Rfc3339,
    id: HostId,
    detail_updated_at: Rfc3339,
    label_updated_at: Rfc3339,
    last_enrolled_at: Rfc3339,
    seen_time: Rfc3339,
    hostname: &'a str,
    display_name: &'a str,
    display_text: &'a str,
    osquery_host_id: &'a str,
    uuid: &'a str,
    platform: &'a str,
    platform_like: &'a str,
    osquery_version: &'a str,
    os_version: &'a str,
    uptime: u64,
    memory: u64,
    cpu_type: &'a str,
    cpu_brand: &'a str,
    cpu_physical_cores: u32,
    cpu_logical_cores: u32,
    hardware_vendor: &'a str,
    hardware_model: &'a str,
    hardware_version: &'a str,
    hardware_serial: &'a str,
    computer_name: &'a str,
    primary_ip: &'a str,
    primary_mac: &'a str,
    distributed_interval: u32,
    config_tls_refresh: u32,
    team_id: Option<TeamId>,
    team_name: Option<String>,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<Vec<Value>>,
}

impl<'a> HostOut<'a> {
    /// The host as it is now.
    #[must_use]
    pub(crate) fn of(host: &'a Host, state: &State, presence: &Presence, now: Timestamp) -> Self {
        let details = &host.details;
        let team = host.team.and_then(|team| state.teams.get(&team));
        let seen = presence.seen(host.id).map_or(0, Timestamp::secs);
        Self {
            created_at: Rfc3339(host.enrolled_at),
            updated_at: Rfc3339(host.enrolled_at.max(host.detailed_at).max(host.labelled_at)),
            id: host.id,
            detail_updated_at: Rfc3339(host.detailed_at),
            label_updated_at: Rfc3339(host.labelled_at),
            last_enrolled_at: Rfc3339(host.enrolled_at),
            seen_time: Rfc3339(seen.max(host.enrolled_at)),
            hostname: host.hostname(),
            display_name: host.display_name(),
            display_text: host.hostname(),
            osquery_host_id: &host.identifier,
            uuid: &details.uuid,
            platform: &details.platform,
            platform_like: &details.platform_like,
            osquery_version: &details.osquery_version,
            os_version: &details.os_version,
            uptime: details.uptime_s.saturating_mul(1_000_000_000),
            memory: details.memory,
            cpu_type: &details.cpu_type,
            cpu_brand: &details.cpu_brand,
            cpu_physical_cores: details.cpu_physical_cores,
            cpu_logical_cores: details.cpu_logical_cores,
            hardware_vendor: &details.hardware_vendor,
            hardware_model: &details.hardware_model,
            hardware_version: &details.hardware_version,
            hardware_serial: &details.hardware_serial,
            computer_name: &details.computer_name,
            primary_ip: &details.primary_ip,
            primary_mac: &details.primary_mac,
            distributed_interval: host.distributed_interval,
            config_tls_refresh: host.config_tls_refresh,
            team_id: host.team,
            team_name: team.map(|(team, _)| team.name.clone()),
            status: status(presence.is_online(host.id, now)),
            labels: None,
        }
    }

    /// The same with the labels that the host belongs to.
    #[must_use]
    pub(crate) fn with_labels(mut self, labels: Vec<Value>) -> Self {
        self.labels = Some(labels);
        self
    }
}

/// The word for a host's presence.
#[must_use]
pub(crate) const fn status(online: bool) -> &'static str {
    if online { "online" } else { "offline" }
}
