//! The real program, told to stop.

use crate::support::{GENERATIONS, Samples, eventually, exchange, quick, receive, send};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// `easel serve` as a process of its own, ended with the test.
struct Program {
    child: Child,
    server: SocketAddr,
}

impl Program {
    /// Starts the program and waits until it is ready.
    fn start(options: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_easel"))
            .args(["serve", "--port", "0"])
            .args(options)
            .env("RUST_LOG", "info")
            .stderr(Stdio::piped())
            .spawn()
            .expect("easel runs");
        let mut log = BufReader::new(child.stderr.take().expect("its log is piped")).lines();
        let address = log.by_ref().find_map(|line| {
            let line = line.expect("the log is text");
            line.split_once("serving on http://").map(|(_, address)| address.to_owned())
        });
        // A pipe that nobody reads fills up and stops the program.
        std::thread::spawn(move || log.for_each(drop));
        let server = address.expect("it says where it serves").parse().expect("an address");
        let program = Self { child, server };
        eventually("the program is ready", || program.readiness() == Some(200));
        program
    }

    fn readiness(&self) -> Option<u16> {
        TcpStream::connect(self.server).ok()?;
        Some(exchange(self.server, "GET /readyz HTTP/1.1", b"").status)
    }

    fn ask(&self, fields: Value) -> TcpStream {
        send(self.server, GENERATIONS, quick(fields).to_string().as_bytes())
    }

    fn signal(&self, name: &str) {
        let told = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(told.expect("kill runs").success());
    }

    /// Waits for the program's end, at most so long.
    #[track_caller]
    fn end(&mut self, most: Duration) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("the program can be waited for") {
                return status;
            }
            assert!(began.elapsed() < most, "the program goes on");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn sigterm_loses_no_request_that_fits_into_the_grace_time_and_refuses_new_ones() {
    let mut program = Program::start(&["--grace", "100"]);
    let asked: Vec<TcpStream> =
        (0..8).map(|k| program.ask(json!({"steps": 40, "seed": k, "guidance_scale": 1 + k % 2}))).collect();
    eventually("all are inside", || Samples::of(program.server).inside() == 8.0);
    program.signal("TERM");
    eventually("the program is not ready any more", || program.readiness() == Some(503));
    let state = exchange(program.server, "GET /readyz HTTP/1.1", b"");
    assert_eq!(state.json(), json!({"status": "draining"}));
    assert_eq!(exchange(program.server, "GET /healthz HTTP/1.1", b"").status, 200);
    let refused = receive(program.ask(json!({})));
    refused.error(503);
    assert!(refused.header("retry-after").is_some(), "a refusal says when to come back");
    for (k, stream) in asked.into_iter().enumerate() {
        assert_eq!(receive(stream).files().len(), 1, "request {k} was taken on");
    }
    assert_eq!(program.end(Duration::from_secs(20)).code(), Some(0));
}

#[test]
fn what_does_not_fit_into_the_grace_time_is_answered_503() {
    let mut program = Program::start(&["--grace", "1"]);
    let endless = program.ask(json!({"steps": 1000, "size": "256x256"}));
    eventually("it is inside", || Samples::of(program.server).inside() == 1.0);
    program.signal("INT");
    let unfinished = receive(endless);
    unfinished.error(503);
    assert!(unfinished.header("retry-after").is_some());
    assert_eq!(program.end(Duration::from_secs(20)).code(), Some(0));
}

#[test]
fn a_second_signal_ends_the_program_at_once() {
    for (signal, status) in [("TERM", 143), ("INT", 130)] {
        let mut program = Program::start(&["--grace", "100"]);
        let endless = program.ask(json!({"n": 4, "steps": 1000, "size": "256x256"}));
        eventually("it is inside", || Samples::of(program.server).inside() >= 1.0);
        program.signal("TERM");
        eventually("the program is not ready any more", || program.readiness() == Some(503));
        program.signal(signal);
        assert_eq!(program.end(Duration::from_secs(5)).code(), Some(status));
        drop(endless);
    }
}

#[test]
fn a_model_that_is_not_there_ends_the_program_with_its_reason() {
    let ended = Command::new(env!("CARGO_BIN_EXE_easel"))
        .args(["serve", "--port", "0", "--model", "/nowhere/model"])
        .output()
        .expect("easel runs");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("error: ") && said.contains("/nowhere/model"), "{said}");
}
