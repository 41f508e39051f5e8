//! The Kubernetes operator. What it does is in the library; this is its command line.

use std::process::ExitCode;

use gameserver::operator::{Options, block_on, crd};

const USAGE: &str = "Usage: gameserver-operator run [--namespace NAMESPACE] [--listen ADDRESS:PORT]
       gameserver-operator crd | version | help

  run      Look after the Gameservers of the cluster, or of one namespace: in a pod, or with the
           current kubeconfig. Health and figures are at --listen, 0.0.0.0:9090 if not given.
  crd      Print the CustomResourceDefinition.
  version  Print the version.
";
/// Exit code of what was not understood.
const MISUSE: u8 = 2;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match &args[..] {
        ["run", options @ ..] => match parse(options).map(block_on) {
            Ok(Ok(())) => ExitCode::SUCCESS,
            Ok(Err(error)) => fail(&error.to_string(), 1),
            Err(problem) => fail(&format!("{problem}\n{USAGE}"), MISUSE),
        },
        ["crd"] => print(&crd::crd_yaml()),
        ["version"] => print(concat!("gameserver-operator ", env!("CARGO_PKG_VERSION"), "\n")),
        ["help" | "--help" | "-h"] => print(USAGE),
        _ => fail(&format!("there is no such command\n{USAGE}"), MISUSE),
    }
}

fn parse(args: &[&str]) -> Result<Options, String> {
    let mut options = Options { namespace: None, listen: ([0, 0, 0, 0], 9090).into() };
    for option in args.chunks(2) {
        match option {
            ["--namespace", name] => options.namespace = Some((*name).to_owned()),
            ["--listen", address] => {
                let takes = |_| format!("--listen takes ADDRESS:PORT, not {address:?}");
                options.listen = address.parse().map_err(takes)?;
            }
            other => return Err(format!("{} is no option with its value", other.join(" "))),
        }
    }
    Ok(options)
}

fn print(text: &str) -> ExitCode {
    use std::io::Write as _;
    // An error: the reader has gone away.
    std::io::stdout().write_all(text.as_bytes()).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
}

fn fail(problem: &str, code: u8) -> ExitCode {
    eprintln!("gameserver-operator: {problem}");
    ExitCode::from(code)
}
