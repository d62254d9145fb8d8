//! The server as callers meet it: real sockets, the bundled model, small pictures.
#![cfg(feature = "server")]

mod draw;
mod leave;
mod refuse;
mod routes;
mod support;
