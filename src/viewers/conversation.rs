//! One session's talk with a viewer: performs what the pure [`Viewer`] asks for, and hands out slices of the log.

use std::hint::black_box;
use std::sync::{Arc, Mutex, PoisonError};

use smallvec::SmallVec;

use super::Shared;
use super::identity::Identity;
use super::select::{self, Found};
use super::watch::CampaignWatch;
use crate::auth::Actor;
use crate::clock::Timestamp;
use crate::results::log::Read;
use crate::results::{Command, StreamError, Viewer};
use crate::sockjs::Form;
use crate::transport::{Conversation, Next};
use crate::wake::WakeSlot;

/// A viewer's half of a session.
pub(super) struct ViewerSession {
    shared: Arc<Shared>,
    wake_slot: WakeSlot,
    viewer: Viewer,
    identity: Option<Arc<Identity>>,
    watch: Option<Arc<CampaignWatch>>,
    /// Where the command that is under way puts what it finds, before it notifies the wake slot.
    mailbox: Option<Arc<Mutex<Option<Found>>>>,
    warned: bool,
}

impl ViewerSession {
    pub(super) fn new(shared: Arc<Shared>, wake_slot: WakeSlot, now: Timestamp) -> Self {
        Self {
            shared,
            wake_slot,
            viewer: Viewer::new(now),
            identity: None,
            watch: None,
            mailbox: None,
            warned: false,
        }
    }

    fn perform(&mut self, mut command: Option<Command>) {
        while let Some(next) = command.take() {
            match next {
                Command::Authenticate { token } => {
                    let actor = self
                        .shared
                        .auth
                        .authenticate(&token, self.shared.clock.now());
                    if let Some(actor) = actor {
                        command = self.authenticated(Ok(actor));
                    } else {
                        self.spawn(select::authenticate_late(Arc::clone(&self.shared), token));
                    }
                }
                Command::Select(selection) => {
                    let identity = self.identity.as_ref();
                    let Some(actor) = identity.and_then(|identity| identity.actor()) else {
                        self.viewer.handle_failure(&StreamError::unauthorized());
                        return;
                    };
                    let (shared, wake_slot) = (Arc::clone(&self.shared), self.wake_slot.clone());
                    self.spawn(select::select(shared, actor, selection, wake_slot));
                }
            }
        }
    }

    fn spawn(&mut self, task: impl Future<Output = Found> + Send + 'static) {
        let mailbox = Arc::clone(self.mailbox.insert(Arc::default()));
        let wake_slot = self.wake_slot.clone();
        self.shared.tasks.spawn(async move {
            let found = task.await;
            *mailbox.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
            wake_slot.notify();
        });
    }

    fn authenticated(&mut self, outcome: Result<Actor, StreamError>) -> Option<Command> {
        let outcome = outcome.map(|actor| {
            let identity = self.shared.identities.join(actor, &self.wake_slot);
            self.identity = Some(identity);
        });
        self.viewer.handle_authenticated(outcome)
    }

    /// Ends the stream unless its user may still have it. Asked whenever that may have changed.
    fn check_right(&mut self) {
        let Some(identity) = &self.identity else {
            return;
        };
        let may = |actor: &Actor| {
            let watch = self.watch.as_ref();
            watch.is_none_or(|watch| watch.allows(actor))
        };
        if !identity.actor().is_some_and(|actor| may(&actor)) {
            self.viewer.handle_failure(&StreamError::unauthorized());
        }
    }

    fn read_mailbox(&mut self) {
        let Some(mailbox) = &self.mailbox else {
            return;
        };
        let mut letter = mailbox.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(found) = letter.take() else {
            return;
        };
        drop(letter);
        self.mailbox = None;
        match found {
            Found::Authenticated(outcome) => {
                let command = self.authenticated(outcome);
                self.perform(command);
            }
            Found::Selected(Err(error)) => self.viewer.handle_selected(Err(error)),
            Found::Selected(Ok(selected)) => {
                let last = selected.watch().log.last();
                if selected.watch().is_incomplete {
                    let id = selected.watch().id();
                    self.viewer
                        .handle_warning(&StreamError::results_incomplete(id));
                }
                self.viewer
                    .handle_selected(Ok((selected.watch().tick(), last)));
                self.watch = Some(selected.into_watch());
                // It may have changed while the campaign was opened.
                self.check_right();
            }
        }
    }

    fn read_tick(&mut self) {
        let Some(watch) = &self.watch else {
            self.check_right();
            return;
        };
        let has_ticked = self.viewer.tick_number() != watch.tick_number();
        let troubled = watch.troubled.load(std::sync::atomic::Ordering::Relaxed);
        if has_ticked {
            let (tick, last) = (watch.tick(), watch.log.last());
            self.check_right();
            self.viewer.handle_tick(tick, last);
        }
        if troubled && !self.warned {
            self.viewer
                .handle_warning(&StreamError::store_unavailable());
        }
        self.warned = troubled;
    }

    fn messages(&mut self) -> Option<Next> {
        let messages: SmallVec<[_; 2]> =
            std::iter::from_fn(|| self.viewer.poll_message()).collect();
        if !messages.is_empty() {
            return Some(Next::Messages(messages));
        }
        let (code, reason) = self.viewer.poll_close()?;
        Some(Next::Close {
            code,
            reason: reason.to_owned(),
        })
    }

    fn results(&mut self, form: Form, budget: usize) -> Next {
        let (Some(watch), Some(cursor)) = (&self.watch, self.viewer.cursor()) else {
            return Next::Wait;
        };
        match watch.log.read(cursor, form, budget) {
            Read::Slice(mut slice, last) => {
                self.viewer.handle_sent(last);
                if slice.drained {
                    self.viewer.handle_end();
                    slice.drained = !self.viewer.has_messages();
                }
                Next::Slice(slice)
            }
            Read::End => {
                self.viewer.handle_end();
                self.messages().unwrap_or(Next::Wait)
            }
            Read::Evicted { first, last } if watch.is_gone(first) => {
                let gone = StreamError::some_results_gone(watch.id(), first, last);
                self.viewer.handle_failure(&gone);
                self.messages().unwrap_or(Next::Wait)
            }
            Read::Evicted { first, last } => {
                let (shared, watch) = (Arc::clone(&self.shared), Arc::clone(watch));
                self.shared
                    .tasks
                    .spawn(async move { watch.recall(&*shared.store, first, last).await });
                Next::Wait
            }
        }
    }
}

impl Conversation for ViewerSession {
    fn message(&mut self, text: &str, _now: Timestamp) {
        let command = self.viewer.handle_message(text);
        self.perform(command);
    }

    /// Fleet takes binary messages like text (spec fleet-live-query, 1.2).
    fn binary(&mut self, bytes: &[u8], now: Timestamp) -> bool {
        let text = std::str::from_utf8(bytes);
        if let Ok(text) = text {
            self.message(text, now);
        }
        text.is_ok()
    }

    fn next(&mut self, form: Form, budget: usize, now: Timestamp) -> Next {
        self.read_mailbox();
        self.viewer.handle_timeout(now);
        self.read_tick();
        match self.messages() {
            Some(next) => next,
            None => self.results(form, budget),
        }
    }

    fn deadline(&self) -> Option<Timestamp> {
        self.viewer.deadline()
    }

    fn look(&self) {
        let viewer = &self.viewer;
        let waits = viewer.has_messages() || viewer.poll_close().is_some();
        black_box((waits, viewer.cursor(), viewer.tick_number()));
        black_box((self.watch.is_some(), self.mailbox.is_some(), self.warned));
    }

    fn closed(&mut self, _now: Timestamp) {
        if let Some(identity) = self.identity.take() {
            self.shared.identities.leave(&identity, &self.wake_slot);
        }
        if let Some(watch) = self.watch.take() {
            watch.log.unsubscribe(&self.wake_slot);
            self.shared.leave(&watch);
        }
    }
}

impl Drop for ViewerSession {
    fn drop(&mut self) {
        self.closed(Timestamp::default());
    }
}
