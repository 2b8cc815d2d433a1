//! The names of all metrics; the product describes them where it installs its recorder.

/// Connections alive.
pub const CONNECTIONS: &str = "answerback_connections";
/// Connections that ended before a request was understood.
pub const CONNECTIONS_DROPPED: &str = "answerback_connections_dropped_total";
/// Requests by face and status class.
pub const REQUESTS: &str = "answerback_http_requests_total";
/// Time from a request to its response's head.
pub const REQUEST_SECONDS: &str = "answerback_http_request_seconds";
/// Request bodies that were refused.
pub const BODIES_REFUSED: &str = "answerback_http_bodies_refused_total";
/// Requests, sessions and campaigns turned away by a limit.
pub const LIMITED: &str = "answerback_limited_total";
/// Sessions alive.
pub const SESSIONS: &str = "answerback_sessions";
/// Sessions opened.
pub const SESSIONS_OPENED: &str = "answerback_sessions_opened_total";
/// Sessions ended.
pub const SESSIONS_CLOSED: &str = "answerback_sessions_closed_total";
/// Bytes handed to the kernel for sessions.
pub const SESSION_BYTES: &str = "answerback_session_bytes_total";
/// Messages handed to the kernel for sessions.
pub const SESSION_MESSAGES: &str = "answerback_session_messages_total";
/// Requests for sessions of other nodes.
pub const RELAYED: &str = "answerback_relayed_total";
/// Campaigns that are not complete.
pub const CAMPAIGNS: &str = "answerback_campaigns";
/// Answers from agents.
pub const RESULTS: &str = "answerback_results_total";
/// Answers whose rows could not be read.
pub const ANSWERS_UNREADABLE: &str = "answerback_answers_unreadable_total";
/// Campaigns whose record or file was damaged at a start.
pub const CAMPAIGNS_DAMAGED: &str = "answerback_campaigns_damaged_total";
/// Answers and log lines that did not fit into what is kept of a body, or were no JSON.
pub const AGENT_ITEMS_OMITTED: &str = "answerback_agent_items_omitted_total";
/// Lines of osquery's log that could not be read.
pub const LOG_LINES_DROPPED: &str = "answerback_osquery_log_lines_dropped_total";
/// Time from an answer's arrival to its append.
pub const APPEND_SECONDS: &str = "answerback_append_seconds";
/// Memory that logs hold.
pub const LOG_BYTES: &str = "answerback_log_bytes";
/// Whether the store takes writes.
pub const STORE_WRITABLE: &str = "answerback_store_writable";
/// Errors of the store.
pub const STORE_ERRORS: &str = "answerback_store_errors_total";
