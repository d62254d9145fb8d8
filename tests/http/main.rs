//! The server as callers meet it: real sockets, the bundled model, small pictures.
#![cfg(feature = "server")]

mod draw;
mod leave;
mod refuse;
mod routes;
#[cfg(unix)]
mod stop;
mod support;
mod turns;
mod watch;
