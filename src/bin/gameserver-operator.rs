//! The Kubernetes operator, which arrives with a later version: this one tells its version.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|arg| arg == "version") && args.next().is_none() {
        println!("gameserver-operator {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    eprintln!("gameserver-operator: the operator arrives with a later version of gameserver");
    ExitCode::from(2)
}
