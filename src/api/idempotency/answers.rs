//! The answers that are kept for requests that come again, and the requests that are being answered.

use super::fingerprint::Fingerprint;
use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::web::Bytes;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch::{Receiver, Sender};

/// How long an answer is kept at most. Clients try again within minutes.
const WINDOW: Duration = Duration::from_secs(3600);

/// The most bytes that all kept answers hold; the oldest go first.
const MOST_BYTES: usize = 128 << 20;

/// What an answer costs beside its body.
const OVERHEAD: usize = 2048;

/// A caller and its key.
pub(super) type Name = (u64, String);

/// An answer as it is kept.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: StatusCode,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Bytes,
}

/// How a request ended.
#[derive(Debug, Clone)]
pub(super) enum End {
    /// With this answer.
    Answer(Arc<Answer>),
    /// With none that could be given again.
    Gone,
}

/// How far a request has come.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress {
    /// What it asks for; known when its body has been read.
    pub asked: Option<Fingerprint>,
    pub end: Option<End>,
}

/// The requests with a key.
#[derive(Debug, Clone)]
pub(super) struct Answers(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    requests: HashMap<Name, Arc<Sender<Progress>>>,
    /// Those of them whose answers are kept, oldest first, each with its time and bytes.
    kept: VecDeque<(Instant, usize, Name)>,
    bytes: usize,
    window: Duration,
}

/// What is known of a request that has just come.
pub(super) enum Met {
    /// It is the first of its name.
    First(Lead),
    /// One of the same name is being answered, or has been.
    Again(Receiver<Progress>),
}

/// The duty to answer the first request of a name. Dropped without an answer, it leaves the name free.
pub(super) struct Lead {
    answers: Answers,
    name: Name,
    progress: Arc<Sender<Progress>>,
}

impl Answers {
    /// Keeps answers for an hour, or for `window` if that is shorter.
    pub(super) fn within(window: Duration) -> Self {
        Self(Arc::new(Mutex::new(Known { window: window.min(WINDOW), ..Known::default() })))
    }

    /// Meets a request at the time `now`.
    pub(super) fn meet(&self, name: Name, now: Instant) -> Met {
        let mut known = self.known();
        known.evict(now, 0);
        if let Some(progress) = known.requests.get(&name) {
            return Met::Again(progress.subscribe());
        }
        let progress = Arc::new(Sender::new(Progress::default()));
        known.requests.insert(name.clone(), Arc::clone(&progress));
        Met::First(Lead { answers: self.clone(), name, progress })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Lets go of answers that are too old, and of the oldest until there is room for `bytes` more.
    fn evict(&mut self, now: Instant, bytes: usize) {
        while let Some((since, held, _)) = self.kept.front() {
            if now.saturating_duration_since(*since) < self.window && self.bytes + bytes <= MOST_BYTES {
                return;
            }
            self.bytes -= held;
            if let Some((_, _, name)) = self.kept.pop_front() {
                self.requests.remove(&name);
            }
        }
    }
}

impl Lead {
    /// Where the request tells how far it is.
    pub(super) fn progress(&self) -> &Arc<Sender<Progress>> {
        &self.progress
    }

    /// Ends the request. Its answer is kept if it is a success, its body was read whole, and it is not too large;
    /// whoever waits for it gets it in any case.
    pub(super) fn end(self, answer: Answer, now: Instant) {
        let bytes = answer.body.len() + OVERHEAD;
        let whole = self.progress.borrow().asked.is_some();
        if answer.status.is_success() && whole && bytes <= MOST_BYTES {
            let mut known = self.answers.known();
            known.evict(now, bytes);
            known.bytes += bytes;
            known.kept.push_back((now, bytes, self.name.clone()));
        } else {
            self.answers.known().requests.remove(&self.name);
        }
        self.progress.send_modify(|progress| progress.end = Some(End::Answer(Arc::new(answer))));
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        if self.progress.borrow().end.is_none() {
            // First the name, so that whoever waited finds it free.
            self.answers.known().requests.remove(&self.name);
            self.progress.send_modify(|progress| progress.end = Some(End::Gone));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        (1, text.to_owned())
    }

    fn answer(status: u16, bytes: usize) -> Answer {
        let status = StatusCode::from_u16(status).unwrap();
        Answer { status, headers: Vec::new(), body: vec![0; bytes].into() }
    }

    /// Answers the first request of a name.
    #[track_caller]
    fn first(answers: &Answers, text: &str, now: Instant, answer: Answer) {
        let Met::First(lead) = answers.meet(name(text), now) else { panic!("{text} is known") };
        lead.progress().send_modify(|progress| progress.asked = Some([7; 32]));
        lead.end(answer, now);
    }

    fn known(answers: &Answers, text: &str, now: Instant) -> bool {
        matches!(answers.meet(name(text), now), Met::Again(_))
    }

    #[test]
    fn a_success_is_kept_for_its_window_and_a_failure_not_at_all() {
        let (answers, now) = (Answers::within(Duration::MAX), Instant::now());
        first(&answers, "a", now, answer(200, 10));
        first(&answers, "b", now, answer(503, 10));
        assert!(known(&answers, "a", now + WINDOW - Duration::from_secs(1)));
        assert!(!known(&answers, "b", now) && !known(&answers, "a", now + WINDOW));
        assert_eq!(answers.known().bytes, 0);
        let brief = Answers::within(Duration::from_secs(60));
        first(&brief, "a", now, answer(200, 10));
        assert!(!known(&brief, "a", now + Duration::from_secs(60)), "links of the answer are dead");
    }

    #[test]
    fn the_oldest_answers_make_room_and_one_that_is_too_large_is_not_kept() {
        let (answers, now) = (Answers::within(Duration::MAX), Instant::now());
        for text in ["a", "b", "c"] {
            first(&answers, text, now, answer(200, MOST_BYTES / 3));
        }
        assert!(!known(&answers, "a", now) && known(&answers, "b", now) && known(&answers, "c", now));
        first(&answers, "large", now, answer(200, MOST_BYTES));
        assert!(!known(&answers, "large", now) && known(&answers, "c", now));
        assert!(answers.known().bytes <= MOST_BYTES && answers.known().requests.len() == 2);
    }

    #[test]
    fn a_request_that_is_given_up_leaves_its_name_free_and_says_so() {
        let (answers, now) = (Answers::within(Duration::MAX), Instant::now());
        let Met::First(lead) = answers.meet(name("a"), now) else { panic!("a is known") };
        let Met::Again(waiting) = answers.meet(name("a"), now) else { panic!("a is free") };
        drop(lead);
        assert!(matches!(waiting.borrow().end, Some(End::Gone)));
        assert!(!known(&answers, "a", now));
    }
}
