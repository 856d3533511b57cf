//! The command line.

use clap::{Parser, Subcommand};

use crate::command::{
    bundle, completion, control, doctor, expiring, export, import, inspect, preview, release, revoke, rotate, status,
    watch,
};
use crate::session::Connection;

/// Fleets of devices and their certificates: see how they are, rotate, revoke, and find out what is wrong.
///
/// Exit codes: 0 done; 1 refused or failed; 2 usage; 3 not found; 4 forbidden; 5 unreachable; 6 not confirmed; 7 done, and
/// something is not well (doctor, watch, --wait).
#[derive(Parser, Debug)]
#[command(
    name = "kubectl-certwave",
    bin_name = "kubectl certwave",
    version,
    about,
    propagate_version = true,
    disable_help_subcommand = true,
    max_term_width = 120
)]
pub struct Arguments {
    /// Which cluster, as whom.
    #[command(flatten)]
    pub connection: Connection,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Fleets at a glance: devices, what rotates, what needs a person.
    Status(status::Arguments),
    /// Follow rotations live: waves, rates, failures.
    Watch(watch::Arguments),
    /// Say what a rotation would do, without doing it.
    Preview(preview::Arguments),
    /// Replace the certificates of a fleet, wave by wave.
    Rotate(rotate::Arguments),
    /// Let a rotation go on after a wave that asks for approval.
    Approve(control::Approve),
    /// Send nothing new; jobs in flight end by themselves.
    Pause(control::Pause),
    /// Go on after a pause, or after a breach.
    Resume(control::Answer),
    /// Stop a rotation for good; no device is sent back.
    Abort(control::Abort),
    /// Let devices that failed try again; answers a breach too.
    Retry(control::Answer),
    /// Send the devices of the present wave back to their old certificates.
    Rollback(control::Answer),
    /// Revoke devices, whole fleets, or what a CA has issued; for good.
    Revoke(revoke::Revoke),
    /// Put devices on hold: refused until they are released.
    Hold(revoke::Hold),
    /// Release devices, or a Revocation, from hold.
    Release(release::Arguments),
    /// One device and its whole history.
    Inspect(inspect::Arguments),
    /// What ends soon: certificates of devices, CAs and brokers.
    Expiring(expiring::Arguments),
    /// Look for what is wrong, and say what to do.
    Doctor(doctor::Arguments),
    /// Declare devices from a file, CSV or JSON.
    Import(import::Arguments),
    /// Write the declared devices, CSV or JSON.
    Export(export::Arguments),
    /// Collect what support needs into one archive, without secrets.
    Bundle(bundle::Arguments),
    /// Print a completion script for a shell.
    Completion(completion::Arguments),
    /// Candidates for kubectl's own completion.
    #[command(name = "__complete", hide = true)]
    Complete(completion::Words),
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use clap::CommandFactory as _;

    use super::*;

    /// What is meant wherever the documentation says this.
    const PLUGIN: &str = "kubectl certwave";

    /// The Markdown of the documentation, with its place.
    fn pages() -> Vec<(PathBuf, String)> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let (mut pages, mut directories) = (vec![root.join("README.md")], vec![root.join("docs")]);
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path);
                } else if path.extension().is_some_and(|extension| extension == "md") {
                    pages.push(path);
                }
            }
        }
        let read = |page: PathBuf| {
            let text = std::fs::read_to_string(&page).unwrap();
            (page, text)
        };
        pages.into_iter().map(read).collect()
    }

    /// The lines in blocks of code that begin with the plugin's name, continued lines as one.
    fn commands(text: &str) -> Vec<String> {
        let (mut commands, mut inside, mut begun) = (Vec::new(), false, None::<String>);
        for line in text.lines().map(str::trim) {
            if line.starts_with("```") {
                inside = !inside;
                continue;
            }
            let line = line.strip_prefix("$ ").unwrap_or(line);
            let whole = match begun.take() {
                Some(before) => format!("{before} {line}"),
                None if inside && line.starts_with(PLUGIN) => line.to_owned(),
                None => continue,
            };
            match whole.strip_suffix('\\') {
                Some(open) => begun = Some(open.trim_end().to_owned()),
                None => commands.push(whole),
            }
        }
        commands
    }

    /// What stands in backticks within a line and begins with the plugin's name.
    fn mentions(text: &str) -> Vec<String> {
        let mut inside = false;
        let outside_of_blocks = text.lines().filter(|line| {
            let fence = line.trim_start().starts_with("```");
            inside ^= fence;
            !inside && !fence
        });
        let spans = outside_of_blocks.flat_map(|line| line.split('`').skip(1).step_by(2));
        spans
            .filter(|span| span.starts_with(PLUGIN))
            .map(str::to_owned)
            .collect()
    }

    /// The words of a command as a shell takes them, up to a comment, a pipe, a redirection or the next command.
    fn words(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
        for c in line.chars() {
            match (c, quote) {
                (c, Some(open)) if c == open => quote = None,
                ('\'' | '"', None) => {
                    quote = Some(c);
                    word.get_or_insert_default();
                }
                ('#', None) if word.is_none() => break,
                ('|' | '>' | '<' | '&' | ';', None) => break,
                (' ', None) => words.extend(word.take()),
                (c, _) => word.get_or_insert_default().push(c),
            }
        }
        words.extend(word);
        words
    }

    #[test]
    fn the_documentation_has_no_command_that_is_refused() {
        let (mut refused, mut seen) = (Vec::new(), 0);
        for (page, text) in pages() {
            for command in commands(&text) {
                seen += 1;
                // The first word is kubectl's: as kubectl does, the plugin is run with the rest.
                if let Err(error) = Arguments::try_parse_from(words(&command).into_iter().skip(1)) {
                    refused.push(format!("{}: {command}\n{error}", page.display()));
                }
            }
        }
        assert!(refused.is_empty(), "{}", refused.join("\n"));
        assert!(seen > 10, "only {seen} commands were found");
    }

    #[test]
    fn the_documentation_names_no_subcommand_and_no_flag_that_there_is_not() {
        let plugin = Arguments::command();
        let (mut unknown, mut seen) = (Vec::new(), 0);
        for (page, text) in pages() {
            for mention in mentions(&text) {
                let mut words = words(&mention).into_iter().skip(2);
                let Some(name) = words.next() else {
                    continue;
                };
                seen += 1;
                let Some(command) = plugin.find_subcommand(&name) else {
                    unknown.push(format!("{}: {mention}", page.display()));
                    continue;
                };
                let flags = command.get_arguments().chain(plugin.get_arguments());
                let flags: BTreeSet<_> = flags.filter_map(clap::Arg::get_long).collect();
                let named = words.filter_map(|word| word.strip_prefix("--").map(str::to_owned));
                let named = named.map(|flag| flag.split('=').next().unwrap_or_default().to_owned());
                let others: Vec<_> = named.filter(|flag| !flags.contains(flag.as_str())).collect();
                if !others.is_empty() {
                    unknown.push(format!("{}: {mention}: {others:?}", page.display()));
                }
            }
        }
        assert!(unknown.is_empty(), "{}", unknown.join("\n"));
        assert!(seen > 5, "only {seen} were found");
    }

    #[test]
    fn commands_are_found_as_a_shell_reads_them() {
        let page = "`kubectl certwave watch`\n```sh\nkubectl certwave resume meters \\\n  -m \"INC 1 # no comment\"  # one\nkubectl get ca\n```\n";
        let found = commands(page);
        assert_eq!(found.len(), 1);
        assert_eq!(
            words(&found[0]),
            ["kubectl", "certwave", "resume", "meters", "-m", "INC 1 # no comment"]
        );
        assert_eq!(mentions(page), ["kubectl certwave watch"]);
    }
}
