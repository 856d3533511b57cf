//! `completion`: scripts for shells; and the candidates that kubectl asks for.

use certwave_crds::{DeviceCertificate, Fleet, Rotation};
use clap::{Arg, Command, CommandFactory as _};
use clap_complete::Shell;
use kube::api::ListParams;

use crate::output::print;
use crate::session::{Connection, Session};
use crate::{Arguments as Whole, Result};

/// Names that are offered at most: nobody reads 100,000 devices.
const OFFERED: u32 = 200;
/// What kubectl is told after the candidates: no file names (cobra's `ShellCompDirectiveNoFileComp`).
const NO_FILES: &str = ":4\n";

/// `completion`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// The words so far; the last one, perhaps empty, is to be completed.
#[derive(clap::Args, Debug)]
pub struct Words {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

/// `completion`.
pub(crate) fn script(arguments: &Arguments) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Whole::command(), "kubectl-certwave", &mut script);
    print(&String::from_utf8_lossy(&script))
}

/// What names a word stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    Fleets,
    Rotations,
    Devices,
    None,
}

/// `__complete`: one candidate a line, then what the shell should do besides.
pub(crate) async fn candidates(words: &Words, connection: &Connection) -> Result<()> {
    let mut root = Whole::command();
    root.build();
    let (mut offered, names) = offer(&root, &words.words);
    let last = words.words.last().map(String::as_str).unwrap_or_default();
    if names != Names::None {
        // Whoever is completing a word wants no error in the middle of it.
        offered.extend(named(names, connection).await.unwrap_or_default());
    }
    offered.retain(|candidate| candidate.starts_with(last));
    print(
        &(offered
            .into_iter()
            .map(|candidate| candidate + "\n")
            .collect::<String>()
            + NO_FILES),
    )
}

async fn named(names: Names, connection: &Connection) -> Result<Vec<String>> {
    let session = Session::open(connection).await?;
    let some = ListParams::default().limit(OFFERED);
    let of = |names: Vec<String>| Ok(names);
    match names {
        Names::None => of(Vec::new()),
        Names::Fleets => of(session
            .api::<Fleet>()
            .list(&some)
            .await?
            .iter()
            .map(kube::ResourceExt::name_any)
            .collect()),
        Names::Devices => of(session
            .api::<DeviceCertificate>()
            .list(&some)
            .await?
            .iter()
            .map(kube::ResourceExt::name_any)
            .collect()),
        Names::Rotations => {
            let running = session.api::<Rotation>().list(&some).await?;
            let running = running
                .iter()
                .filter(|r| !crate::progress::is_over(crate::progress::phase(r.status.as_ref())));
            of(running.map(kube::ResourceExt::name_any).collect())
        }
    }
}

/// What can stand in the place of the last word.
fn offer(root: &Command, words: &[String]) -> (Vec<String>, Names) {
    let (last, before) = words
        .split_last()
        .map_or(("", words), |(last, before)| (last.as_str(), before));
    let mut command = root;
    let mut value_of: Option<&Arg> = None;
    for word in before {
        if value_of.take().is_some() {
            continue;
        }
        if word.starts_with('-') {
            value_of = takes_value(command, word);
        } else if let Some(next) = command.find_subcommand(word) {
            command = next;
        }
    }
    if let Some(argument) = value_of {
        return (values(argument), by_option(argument.get_id().as_str()));
    }
    if last.starts_with('-') {
        let long = command
            .get_arguments()
            .filter(|a| !a.is_hide_set())
            .filter_map(Arg::get_long);
        return (long.map(|long| format!("--{long}")).collect(), Names::None);
    }
    let commands = command.get_subcommands().filter(|c| !c.is_hide_set());
    let offered: Vec<String> = commands.map(|c| c.get_name().to_owned()).collect();
    let positional = command.get_positionals().next();
    let values = positional.map(values).unwrap_or_default();
    let names = positional.map_or(Names::None, |_| by_command(command.get_name()));
    (offered.into_iter().chain(values).collect(), names)
}

/// The option that this word is, if its value is the next word.
fn takes_value<'a>(command: &'a Command, word: &str) -> Option<&'a Arg> {
    if word.contains('=') {
        return None;
    }
    let is = |argument: &&Arg| {
        let long = argument.get_long().is_some_and(|long| word == format!("--{long}"));
        long || argument.get_short().is_some_and(|short| word == format!("-{short}"))
    };
    command
        .get_arguments()
        .find(is)
        .filter(|argument| argument.get_action().takes_values())
}

fn values(argument: &Arg) -> Vec<String> {
    let possible = argument.get_possible_values();
    possible.iter().map(|value| value.get_name().to_owned()).collect()
}

fn by_option(option: &str) -> Names {
    match option {
        "fleet" => Names::Fleets,
        _ => Names::None,
    }
}

fn by_command(command: &str) -> Names {
    match command {
        "status" | "watch" | "preview" | "rotate" => Names::Fleets,
        "approve" | "pause" | "resume" | "abort" | "retry" | "rollback" => Names::Rotations,
        "revoke" | "hold" | "release" | "inspect" => Names::Devices,
        _ => Names::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(words: &[&str]) -> (Vec<String>, Names) {
        let mut root = Whole::command();
        root.build();
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        offer(&root, &words)
    }

    #[test]
    fn commands_options_values_and_names_are_offered_where_they_can_stand() {
        let (commands, _) = offered(&["ro"]);
        assert!(commands.contains(&"rotate".to_owned()) && !commands.contains(&"__complete".to_owned()));
        assert!(offered(&["rotate", "--"]).0.contains(&"--max-in-flight".to_owned()));
        assert!(offered(&["status", "-o", ""]).0.contains(&"yaml".to_owned()));
        assert!(
            offered(&["revoke", "x", "--reason", "key"])
                .0
                .contains(&"keyCompromise".to_owned())
        );
        assert_eq!(offered(&["-n", "plant", "rotate", ""]).1, Names::Fleets);
        assert_eq!(offered(&["approve", ""]).1, Names::Rotations);
        assert_eq!(offered(&["inspect", "pu"]).1, Names::Devices);
        assert_eq!(offered(&["revoke", "--fleet", ""]).1, Names::Fleets);
    }
}
