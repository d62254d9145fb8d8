//! The signals that ask a program to end.

use std::future::poll_fn;
use std::io;
use std::task::Poll;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// A signal that came.
#[derive(Debug, Clone, Copy)]
pub struct Told {
    /// Its name.
    pub name: &'static str,
    number: i32,
}

impl Told {
    /// The exit status of a program that the signal ended, as shells count it.
    pub fn status(self) -> i32 {
        128 + self.number
    }
}

/// SIGTERM and SIGINT; from [`Signals::listen`] on they do not end the program by themselves.
#[derive(Debug)]
pub struct Signals([(Told, Signal); 2]);

impl Signals {
    /// Listens from now on; within an async runtime only.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn listen() -> io::Result<Self> {
        let listen = |name, kind: SignalKind| {
            Ok::<_, io::Error>((Told { name, number: kind.as_raw_value() }, signal(kind)?))
        };
        Ok(Self([listen("SIGTERM", SignalKind::terminate())?, listen("SIGINT", SignalKind::interrupt())?]))
    }

    /// The next signal that comes.
    pub async fn next(&mut self) -> Told {
        poll_fn(|context| {
            let come = self
                .0
                .iter_mut()
                .find_map(|(told, signal)| signal.poll_recv(context).is_ready().then_some(*told));
            come.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}
