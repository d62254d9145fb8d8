//! The server as callers meet it: real sockets, the bundled model, small pictures.
#![cfg(feature = "server")]

#[cfg(unix)]
mod bucket;
mod draw;
mod edits;
mod forms;
mod leave;
#[cfg(unix)]
mod program;
mod refuse;
mod routes;
#[cfg(unix)]
mod stop;
mod stored;
mod stream;
mod support;
mod turns;
mod uploads;
mod variations;
mod watch;
