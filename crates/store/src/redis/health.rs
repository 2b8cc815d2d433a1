//! What an operator must know of the server: settings with which it forgets, and whether it has a replica.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use redis::Value;
use tokio::time::sleep;

use super::reply::text;
use super::{Core, HEALTH_EVERY};
use crate::StoreError;

/// The oldest server with every command that is used (`ZADD LT`, exclusive `XRANGE`).
const OLDEST: (u32, u32) = (6, 2);

/// A server that evicts is warned of again after so many looks: each minute.
const LOOKS_BETWEEN_SHOUTS: u32 = 6;

/// What is wrong with a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Warning {
    /// A sentence.
    pub(super) text: String,
    /// Whether it is that keys are evicted.
    pub(super) is_eviction: bool,
}

impl From<String> for Warning {
    fn from(text: String) -> Self {
        Self {
            text,
            is_eviction: false,
        }
    }
}

impl Core {
    /// Warnings about the servers; none if all is well.
    pub(super) async fn health(&self) -> Result<Vec<Warning>, StoreError> {
        let reply = self.control.call(&redis::cmd("INFO")).await?;
        let mut warnings = Vec::new();
        let mut replicas = 0;
        for (server, info) in servers(&reply) {
            let before = warnings.len();
            judge(info, &mut warnings);
            if !server.is_empty() {
                for warning in &mut warnings[before..] {
                    warning.text = format!("{server}: {}", warning.text);
                }
            }
            replicas += number(info, "connected_slaves");
        }
        self.has_replica.store(replicas > 0, Ordering::Relaxed);
        Ok(warnings)
    }

    /// Logs what has become wrong, or right again.
    pub(super) async fn watch_health(self: Arc<Self>) {
        let mut known = self.health().await.unwrap_or_default();
        let mut looks = 0u32;
        loop {
            sleep(HEALTH_EVERY).await;
            looks = looks.wrapping_add(1);
            let Ok(now) = self.health().await else {
                continue;
            };
            for warning in &now {
                let is_new = !known.contains(warning);
                let text = &warning.text;
                if warning.is_eviction && (is_new || looks.is_multiple_of(LOOKS_BETWEEN_SHOUTS)) {
                    tracing::error!("{text}; set `maxmemory-policy noeviction`");
                } else if is_new {
                    tracing::warn!("{text}");
                }
            }
            known = now;
        }
    }
}

/// Each server's answer to `INFO`; a cluster answers with one a primary.
fn servers(reply: &Value) -> Vec<(&str, &str)> {
    match reply {
        Value::Map(pairs) => pairs
            .iter()
            .filter_map(|(server, info)| Some((text(server)?, plain(info)?)))
            .collect(),
        one => plain(one).map(|info| ("", info)).into_iter().collect(),
    }
}

fn plain(value: &Value) -> Option<&str> {
    match value {
        Value::VerbatimString { text, .. } => Some(text),
        other => text(other),
    }
}

fn judge(info: &str, warnings: &mut Vec<Warning>) {
    let version = field(info, "redis_version").unwrap_or("0.0");
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    let major_minor = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if major_minor < OLDEST {
        warnings.push(format!("Redis {version} is older than 6.2").into());
    }
    let policy = field(info, "maxmemory_policy").unwrap_or("noeviction");
    if policy != "noeviction" && number(info, "maxmemory") > 0 {
        warnings.push(Warning {
            text: format!(
                "maxmemory-policy is {policy}: when its memory is full, Redis throws hosts, users and results away"
            ),
            is_eviction: true,
        });
    }
    if field(info, "aof_enabled") == Some("0") {
        let text = "appendonly is off: results do not survive a restart of Redis";
        warnings.push(text.to_owned().into());
    }
    if field(info, "aof_last_write_status") == Some("err") {
        warnings.push("the append-only file cannot be written".to_owned().into());
    }
    let (used, most) = (number(info, "used_memory"), number(info, "maxmemory"));
    if most > 0 && used > most / 10 * 9 {
        warnings.push(format!("memory is nearly full: {used} of {most} bytes").into());
    }
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}

fn number(info: &str, name: &str) -> u64 {
    field(info, name)
        .and_then(|value| value.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_with_which_results_are_lost_are_warned_of() {
        let mut warnings = Vec::new();
        judge(
            "redis_version:7.0.15\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\naof_enabled:1\r\naof_last_write_status:ok\r\n",
            &mut warnings,
        );
        assert!(warnings.is_empty(), "{warnings:?}");
        judge(
            "redis_version:5.0.1\r\nused_memory:99\r\nmaxmemory:100\r\nmaxmemory_policy:allkeys-lru\r\naof_enabled:0\r\n",
            &mut warnings,
        );
        assert_eq!(warnings.len(), 4, "{warnings:?}");
    }
}
