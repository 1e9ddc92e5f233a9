//! The `callgate` command.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    #[cfg(target_os = "linux")]
    refuse_huge_pages();
    callgate::cli::run()
}

/// Keeps memory in pages of 4 KiB.
///
/// The allocator asks for huge pages, and then whatever is touched anew takes 2 MiB of memory: the buffers of
/// four connections, some hundred KiB each, made the process larger by up to 64 MiB instead of 11. Without
/// leave to refuse them, it runs all the same.
#[cfg(target_os = "linux")]
fn refuse_huge_pages() {
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}
