//! The server as callers meet it: real sockets, the bundled model, small pictures.
#![cfg(feature = "server")]

#[cfg(unix)]
mod bucket;
mod draw;
mod leave;
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
mod watch;
