//! Shapes that several routes share, in the notation of [`super::shape`]; `In` marks what is taken.

/// Shapes that several routes share.
pub(super) const NAMED: &[(&str, &str)] = &[
    (
        "Error",
        r#"{message: string, errors: [{name: string, reason: string}]|null, uuid?: string}"#,
    ),
    (
        "PageMeta",
        "{has_next_results: bool, has_previous_results: bool}",
    ),
    (
        "SelectedIds",
        "{hosts?: [int]|null, labels?: [int]|null, teams?: [int]|null}",
    ),
    (
        "SelectedNames",
        "{hosts?: [Named]|null, labels?: [Named]|null, teams?: [Named]|null}",
    ),
    ("Named", "string|int"),
    (
        "RunByIds",
        "{query: text, query_id?: null, selected: SelectedIds|null}|{query?: string|null, query_id: int, selected: SelectedIds|null}",
    ),
    (
        "RunByNames",
        "{query: text, query_id?: null, selected: SelectedNames|null}|{query?: string|null, query_id: int, selected: SelectedNames|null}",
    ),
    (
        "CreatedCampaign",
        "{created_at: time, updated_at: time, Metrics: Metrics, id: int, query_id: int, status: int, user_id: int}",
    ),
    (
        "Metrics",
        "{TotalHosts: int, OnlineHosts: int, OfflineHosts: int, MissingInActionHosts: int, NewHosts: int}",
    ),
    (
        "Campaign",
        r#"{id: int, created_at: time, updated_at: time, query_id: int, query_name: string|null, query: string, user_id: int, status: int, state: "waiting"|"running"|"complete", ended_at: time|null, ending: "unclaimed"|"unwatched"|"stopped"|"expired"|null, stopped_by: int|null, targets_count: int, counts?: CampaignCounts, epoch?: int, incomplete?: bool}"#,
    ),
    (
        "CampaignCounts",
        "{answered: int, failed: int, waiting: int, offline: int}",
    ),
    (
        "CampaignHost",
        r#"{id: int, hostname: string, display_name: string, state: "answered"|"failed"|"waiting"|"offline", handed_out: bool, status: "online"|"offline", seen_time: time}"#,
    ),
    ("Row", "object"),
    (
        "HostAnswer",
        "{host_id: int, rows: [Row], error: string|null}",
    ),
    (
        "LiveQueryResult",
        "{query_id: int, error?: string, results: [HostAnswer]}",
    ),
    (
        "LiveQueryOnHosts",
        "{query_id: int, targeted_host_count: int, responded_host_count: int, results: [HostAnswer]}",
    ),
    (
        "LiveQueryOnHost",
        r#"{host_id: int, rows: [Row], query: string, status: "online"|"offline", error?: string}"#,
    ),
    ("Role", r#""admin"|"maintainer"|"observer"|"observer_plus""#),
    (
        "User",
        "{created_at: time, updated_at: time, id: int, name: string, email: string, force_password_reset: bool, gravatar_url: string, sso_enabled: bool, mfa_enabled: bool, api_only: bool, global_role: Role|null, teams: [TeamRole]}",
    ),
    ("TeamRole", "{id: int, name: string, role: Role}"),
    ("RoleIn", r#"Role|""|null"#),
    ("TeamRoleIn", "{id: int, role: Role}"),
    (
        "UserNew",
        "{name: name, email: email, password?: password|null, global_role?: RoleIn, teams?: [TeamRoleIn]|null, api_only?: bool|null, admin_forced_password_reset?: bool|null}",
    ),
    (
        "ProgramNew",
        "{name: name, email?: email|null, password?: password|null, global_role?: RoleIn, teams?: [TeamRoleIn]|null, api_only?: bool|null, admin_forced_password_reset?: bool|null}",
    ),
    (
        "UserChange",
        "{name?: name|null, email?: email|null, password?: password|null, global_role?: RoleIn, teams?: [TeamRoleIn]|null, api_only?: bool|null, admin_forced_password_reset?: bool|null}",
    ),
    (
        "TeamSummary",
        "{id: int, name: string, description: string}",
    ),
    (
        "Team",
        "{created_at: time, id: int, name: string, description: string, agent_options: object|null, user_count: int, host_count: int, secrets?: [Secret]}",
    ),
    (
        "TargetTeam",
        "{id: int, name: string, description: string, display_text: string, count: int}",
    ),
    (
        "AgentOptions",
        "{config?: object|null, overrides?: object|null, spec?: {config?: object|null, overrides?: object|null, ...}|null, ...}",
    ),
    (
        "TeamSpecIn",
        "{name: name, agent_options?: AgentOptions|null, secrets?: [SecretIn; 0..50]|null}",
    ),
    (
        "Secret",
        "{secret: string, created_at: time, team_id?: int}",
    ),
    ("SecretIn", "{secret: secret}|secret"),
    (
        "Host",
        r#"{created_at: time, updated_at: time, id: int, detail_updated_at: time, label_updated_at: time, last_enrolled_at: time, seen_time: time, hostname: string, display_name: string, display_text: string, osquery_host_id: string, uuid: string, platform: string, platform_like: string, osquery_version: string, os_version: string, uptime: int, memory: int, cpu_type: string, cpu_brand: string, cpu_physical_cores: int, cpu_logical_cores: int, hardware_vendor: string, hardware_model: string, hardware_version: string, hardware_serial: string, computer_name: string, primary_ip: string, primary_mac: string, distributed_interval: int, config_tls_refresh: int, team_id: int|null, team_name: string|null, status: "online"|"offline", labels?: [{id: int, name: string, description: string}]}"#,
    ),
    ("Membership", r#""dynamic"|"manual""#),
    ("LabelType", r#""builtin"|"regular""#),
    (
        "Label",
        "{created_at: time, updated_at: time, id: int, name: string, description: string, query: string, platform: string, label_type: LabelType, label_membership_type: Membership, display_text: string, count: int, host_count: int}",
    ),
    (
        "LabelSpec",
        "{id: int, name: string, description: string, query: string, platform?: string, label_type: LabelType, label_membership_type: Membership, hosts?: [string]}",
    ),
    (
        "LabelSpecIn",
        r#"{name: name, description?: string|null, query: text, platform?: string|null, label_type?: LabelType|""|null, label_membership_type?: "dynamic"|""|null, hosts?: [string]|null}|{name: name, description?: string|null, query?: string|null, platform?: string|null, label_type?: LabelType|""|null, label_membership_type: "manual", hosts?: [string; 0..100000]|null}"#,
    ),
    (
        "Query",
        "{created_at: time, updated_at: time, id: int, name: string, description: string, query: string, team_id: int|null, saved: bool, observer_can_run: bool, author_id: int|null, author_name: string, author_email: string, packs: [object], interval?: int, platform?: string, min_osquery_version?: string, automations_enabled?: bool, logging?: string, discard_data?: bool}",
    ),
    (
        "QueryNew",
        "{name: name, description?: string|null, query: text, observer_can_run?: bool|null, team_id?: int|null, interval?: int|null, platform?: string|null, min_osquery_version?: string|null, automations_enabled?: bool|null, logging?: string|null, discard_data?: bool|null}",
    ),
    (
        "QueryChange",
        "{name?: name|null, description?: string|null, query?: text|null, observer_can_run?: bool|null, team_id?: int|null, interval?: int|null, platform?: string|null, min_osquery_version?: string|null, automations_enabled?: bool|null, logging?: string|null, discard_data?: bool|null}",
    ),
    (
        "QuerySpecIn",
        "{name: name, description?: string|null, query: text, team?: string|null, observer_can_run?: bool|null, interval?: int|null, platform?: string|null, min_osquery_version?: string|null, automations_enabled?: bool|null, logging?: string|null, discard_data?: bool|null}",
    ),
    (
        "QuerySpec",
        "{name: string, description: string, query: string, team?: string, observer_can_run: bool, interval?: int, platform?: string, min_osquery_version?: string, automations_enabled?: bool, logging?: string, discard_data?: bool}",
    ),
    (
        "PackSpec",
        "{id: int, name: string, description: string, platform?: string, disabled: bool, targets: {labels: [string]|null, teams?: [string]|null}, queries: [PackQuerySpec]}",
    ),
    (
        "PackQuerySpec",
        "{query: string, name: string, description: string, interval: int, snapshot?: bool, removed?: bool, shard?: int, platform: string, version: string, denylist?: bool}",
    ),
    (
        "PackSpecIn",
        "{id?: int|null, name: name, description?: string|null, platform?: string|null, disabled?: bool|null, targets?: {labels?: [string]|null, teams?: [string]|null}|null, queries?: [PackQuerySpecIn]|null}",
    ),
    (
        "PackQuerySpecIn",
        "{query: text, name?: string|null, description?: string|null, interval: 1..604800, snapshot?: bool|null, removed?: bool|null, shard?: 0..100|null, platform?: string|null, version?: string|null, denylist?: bool|null}",
    ),
    (
        "Activity",
        "{created_at: time, id: int, actor_full_name: string, actor_id: int|null, actor_gravatar: string, actor_email: string, type: string, details: any}",
    ),
    (
        "Token",
        "{id: string, name: string, created_at: time, expires_at: time|null}",
    ),
    (
        "Config",
        "{agent_options?: object|null, server_settings: {live_query_disabled: bool, server_url: string, ...}, org_info: object, ...}",
    ),
];
