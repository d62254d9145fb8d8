//! The real program, as a process of its own.

use crate::support::{GENERATIONS, common_store, eventually, exchange, quick, send};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// `easel serve` as a process of its own, ended with the test.
pub struct Program {
    child: Child,
    pub server: SocketAddr,
    log: Arc<Mutex<String>>,
}

impl Program {
    /// Starts the program and waits until it is ready.
    pub fn start(options: &[&str]) -> Self {
        Self::start_in(options, &[])
    }

    /// As [`Program::start`], with variables of the environment.
    pub fn start_in(options: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_easel"))
            .args(["serve", "--port", "0"])
            .args(options)
            .env("RUST_LOG", "info")
            .env("EASEL_STORAGE", common_store())
            .envs(environment.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .expect("easel runs");
        let mut lines = BufReader::new(child.stderr.take().expect("its log is piped")).lines();
        let log = Arc::new(Mutex::new(String::new()));
        let written = Arc::clone(&log);
        let mut note = move |line: std::io::Result<String>| {
            let line = line.expect("the log is text");
            written.lock().expect("nothing panics with it").extend([line.as_str(), "\n"]);
            line
        };
        let address = lines
            .by_ref()
            .map(&mut note)
            .find_map(|line| line.split_once("serving on http://").map(|(_, address)| address.to_owned()));
        // A pipe that nobody reads fills up and stops the program.
        std::thread::spawn(move || lines.for_each(|line| drop(note(line))));
        let server = address.expect("it says where it serves").parse().expect("an address");
        let program = Self { child, server, log };
        eventually("the program is ready", || program.readiness() == Some(200));
        program
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("nothing panics with it").clone()
    }

    /// The status of `/readyz`; none where the program does not listen.
    pub fn readiness(&self) -> Option<u16> {
        TcpStream::connect(self.server).ok()?;
        Some(exchange(self.server, "GET /readyz HTTP/1.1", b"").status)
    }

    /// Asks for pictures and does not wait for them.
    pub fn ask(&self, fields: Value) -> TcpStream {
        send(self.server, GENERATIONS, quick(fields).to_string().as_bytes())
    }

    /// Sends a signal.
    pub fn signal(&self, name: &str) {
        let told = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(told.expect("kill runs").success());
    }

    /// Waits for the program's end, at most so long.
    #[track_caller]
    pub fn end(&mut self, most: Duration) -> ExitStatus {
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
