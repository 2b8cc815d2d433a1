//! WebSocket sessions, raw and SockJS-framed: accepts the handshake and has a row's task drive the socket.

mod driver;
mod pace;
mod row;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use metrics::{Counter, Gauge};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::application::{Application, Opened};
use super::upgrade::Handshake;
use crate::clock::Clock;
use crate::limits::permits::Permit;
use crate::names;
use crate::sockjs::settings::Timing;
use crate::sockjs::{Form, Transport};
use driver::Driver;
use row::SessionGroups;

/// What an operator may set.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Heartbeat, and how long a client may take nothing of what waits for it.
    pub timing: Timing,
    /// The longest message a client may send, in bytes, as sent and as inflated; more is closed 1009.
    pub max_message: usize,
    /// Whether permessage-deflate is agreed to.
    pub deflate: bool,
    /// How long a client may take to answer a close.
    pub close_wait: Duration,
    /// When the server stops, sessions are told at moments spread over this time, so that their
    /// reconnecting does not hit the other nodes at once.
    pub goodbye_spread: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            timing: Timing::default(),
            max_message: 64 * 1024,
            deflate: true,
            close_wait: Duration::from_secs(5),
            goodbye_spread: Duration::ZERO,
        }
    }
}

/// Whether SockJS frames travel in the WebSocket messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The application's messages as they are.
    Raw,
    /// `o`, `h`, `a[...]`, `c[...]` to the client, JSON strings from it.
    Framed,
}

impl Mode {
    const fn transport(self) -> Transport {
        match self {
            Self::Raw => Transport::RawWebSocket,
            Self::Framed => Transport::WebSocket,
        }
    }

    /// For metrics.
    const fn label(self) -> &'static str {
        match self {
            Self::Raw => "raw_websocket",
            Self::Framed => "websocket",
        }
    }

    const fn form(self, deflate: bool) -> Form {
        match (self, deflate) {
            (Self::Raw, false) => Form::RawFrame,
            (Self::Raw, true) => Form::RawDeflated,
            (Self::Framed, false) => Form::SockJsFrame,
            (Self::Framed, true) => Form::SockJsDeflated,
        }
    }
}

/// The WebSocket sessions of one application.
#[derive(Debug)]
pub struct Sockets<A: ?Sized> {
    shared: Arc<Shared>,
    tasks: TaskTracker,
    rows: SessionGroups,
    opened: AtomicU32,
    application: Arc<A>,
}

/// What they share.
#[derive(Debug)]
struct Shared {
    settings: Settings,
    clock: Clock,
    stop: CancellationToken,
    /// Set before `stop` is cancelled: sessions look at this at every turn, because it costs less.
    stopping: AtomicBool,
    raw: Meters,
    framed: Meters,
}

impl Shared {
    /// How long after the server's stop this session is told.
    fn goodbye_delay(&self, number: u32) -> Duration {
        // Consecutive numbers land far apart (multiplicative hashing by the golden ratio).
        let place = f64::from(number.wrapping_mul(0x9e37_79b9)) / f64::from(u32::MAX);
        self.settings.goodbye_spread.mul_f64(place)
    }
}

#[derive(Debug)]
struct Meters {
    alive: Gauge,
    opened: Counter,
    bytes: Counter,
    messages: Counter,
}

impl Meters {
    fn of(mode: Mode) -> Self {
        let transport = mode.label();
        Self {
            alive: metrics::gauge!(names::SESSIONS, "transport" => transport),
            opened: metrics::counter!(names::SESSIONS_OPENED, "transport" => transport),
            bytes: metrics::counter!(names::SESSION_BYTES, "transport" => transport),
            messages: metrics::counter!(names::SESSION_MESSAGES, "transport" => transport),
        }
    }
}

/// A client's place in the product: who it is and where it came in.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The client's address, as trusted proxies report it.
    pub address: IpAddr,
    /// The mount's prefix.
    pub prefix: Arc<str>,
    /// Its place among the sessions alive, given back when the session ends.
    pub place: Option<Arc<Permit<IpAddr>>>,
}

impl<A: Application + ?Sized> Sockets<A> {
    /// Sessions of `application`. Their tasks belong to `tasks`, which the owner waits for after
    /// [`Sockets::stop`]. The recorder of metrics, if there is one, must be installed before.
    pub fn new(
        application: Arc<A>,
        settings: Settings,
        clock: Clock,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let rows = SessionGroups::new(tasks.clone(), clock.clone());
        let shared = Shared {
            settings,
            clock,
            stop,
            stopping: AtomicBool::new(false),
            raw: Meters::of(Mode::Raw),
            framed: Meters::of(Mode::Framed),
        };
        Arc::new(Self {
            shared: Arc::new(shared),
            rows,
            tasks,
            opened: AtomicU32::new(0),
            application,
        })
    }

    /// Cancels the token that [`Sockets::new`] was given; every session says goodbye and ends.
    pub fn stop(&self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.stop.cancel();
    }

    /// What is agreed to in a handshake.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// Accepts a judged handshake: gives the 101 to answer with, and starts the session once that is
    /// written. [`Application::open`] is called then, not before.
    pub fn accept(
        self: &Arc<Self>,
        handshake: Handshake,
        mode: Mode,
        origin: Origin,
    ) -> Response<Bytes> {
        let response = handshake.response();
        let sockets = Arc::clone(self);
        self.tasks
            .spawn(async move { sockets.session(handshake, mode, origin).await });
        response
    }

    async fn session(self: Arc<Self>, handshake: Handshake, mode: Mode, origin: Origin) {
        let Origin {
            address,
            prefix,
            place,
        } = origin;
        let deflate = handshake.deflate();
        let socket = match handshake.upgraded().await {
            Ok(socket) => socket,
            Err(fault) => {
                tracing::debug!(%fault, "handshake came to nothing");
                return;
            }
        };
        let seat = self.rows.seat();
        let opened = Opened {
            transport: mode.transport(),
            address,
            prefix,
            wake_slot: seat.wake_slot().clone(),
        };
        let conversation = self.application.open(opened, self.shared.clock.now());
        let opening = Opening {
            mode,
            deflate,
            number: self.opened.fetch_add(1, Ordering::Relaxed),
            place,
        };
        let shared = Arc::clone(&self.shared);
        // Another task drives it, because this one keeps room for the handshake.
        if let Some(driver) = Driver::new(shared, opening, socket, conversation) {
            seat.take(driver);
        }
    }
}

/// How one session has begun.
struct Opening {
    mode: Mode,
    deflate: bool,
    /// Counts the sessions.
    number: u32,
    /// Given back with the session.
    place: Option<Arc<Permit<IpAddr>>>,
}
