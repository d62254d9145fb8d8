//! The server as callers meet it: real sockets, the bundled model, small pictures.
#![cfg(feature = "server")]

#[cfg(unix)]
mod bucket;
mod cors;
mod draw;
mod edits;
mod errors;
mod forms;
mod idempotency;
#[cfg(unix)]
mod keys;
mod leave;
mod limits;
#[cfg(unix)]
mod program;
mod refuse;
mod routes;
mod sizes;
#[cfg(unix)]
mod stop;
mod stored;
mod stream;
mod support;
mod turns;
mod uploads;
mod variations;
mod watch;
