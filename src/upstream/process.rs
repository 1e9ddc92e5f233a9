//! A child process: started with no environment but its own, and ended with all that it started.

use std::{process::Stdio, sync::Arc};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use secrecy::ExposeSecret as _;
use tokio::{
    io::AsyncRead,
    process::{Child, ChildStdin, ChildStdout, Command},
    time,
};

use super::{Bounds, Program, UpstreamError, desk::Desk};
use crate::{
    hygiene,
    lines::{Line, Lines},
};

/// How much of a line of the program's log is kept.
const LOG_LINE_BYTES_MAX: usize = 4_096;

/// A child that runs, and its two ends.
pub(super) struct Running {
    pub(super) child: Child,
    pub(super) stdin: ChildStdin,
    pub(super) stdout: ChildStdout,
}

/// Starts a program.
pub(super) fn start(program: &Program) -> Result<Running, UpstreamError> {
    let mut command = Command::new(&program.command);
    command.args(&program.args).env_clear().current_dir(&program.dir);
    for (name, value) in &program.env {
        command.env(name, value.expose_secret());
    }
    command.process_group(0).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| UpstreamError::Start { kind: error.kind() })?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(stdin), Some(stdout), Some(stderr)) = (stdin, stdout, stderr) else {
        return Err(UpstreamError::Start { kind: std::io::ErrorKind::BrokenPipe });
    };
    tokio::spawn(log(stderr, Arc::clone(&program.name)));
    Ok(Running { child, stdin, stdout })
}

/// Waits until the desk is closed or the child ends, and then ends it and its whole group.
///
/// Its standard input is closed by then, which well-behaved programs take for the end.
pub(super) async fn keep(mut child: Child, bounds: Bounds, desk: Arc<Desk>) {
    // The leader's id is the group's.
    let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    tokio::select! {
        () = desk.closed().cancelled() => {
            let _ = time::timeout(bounds.exit_timeout, child.wait()).await;
        }
        _ = child.wait() => {
            // Its last words may still wait to be read.
            let _ = time::timeout(bounds.exit_timeout, desk.closed().cancelled()).await;
        }
    }
    desk.close();
    desk.tell_closed();
    let Some(group) = group else { return };
    // What the child started may live on when the child has ended. Without any of them the group does not exist.
    if killpg(group, Signal::SIGTERM).is_ok() {
        let ended = async {
            let _ = child.wait().await;
            while killpg(group, None).is_ok() {
                time::sleep(bounds.exit_timeout / 20).await;
            }
        };
        if time::timeout(bounds.exit_timeout, ended).await.is_err() {
            let _ = killpg(group, Signal::SIGKILL);
            let _ = child.wait().await;
        }
    }
}

/// What the program writes to its standard error goes to the gate's own log, and nowhere else.
async fn log(stderr: impl AsyncRead + Unpin, name: Arc<str>) {
    let mut lines = Lines::new(stderr, LOG_LINE_BYTES_MAX);
    while let Ok(Some(line)) = lines.next().await {
        match line {
            Line::Whole(line) => {
                let text = String::from_utf8_lossy(&line);
                let (text, _) = hygiene::clean(&text);
                tracing::debug!(upstream = %name, "{}", text.escape_debug());
            }
            Line::TooLong => {
                tracing::debug!(upstream = %name, "(a line of more than {LOG_LINE_BYTES_MAX} bytes)")
            }
        }
    }
}
