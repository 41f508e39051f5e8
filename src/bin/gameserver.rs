//! The game server. What it does is in the library; see `cli` for the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    gameserver::cli::run(std::env::args_os().skip(1))
}
