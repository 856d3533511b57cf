//! The plugin as a person runs it.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use certwave_e2e::programs;
use certwave_e2e::stack::Stack;
use serde_json::Value;

/// Runs `kubectl-certwave` in a stack's namespace, without a terminal.
pub(crate) struct Plugin {
    kubeconfig: std::path::PathBuf,
    namespace: String,
    history: String,
}

/// What it said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Plugin {
    /// As administrator.
    pub(crate) fn of(stack: &Stack) -> Self {
        Self::by(stack, stack.api.kubeconfig())
    }

    /// With this kubeconfig.
    pub(crate) fn by(stack: &Stack, kubeconfig: &Path) -> Self {
        Self {
            kubeconfig: kubeconfig.to_owned(),
            namespace: stack.namespace().to_owned(),
            history: stack.history().to_string(),
        }
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(programs::plugin().unwrap());
        command
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(["--namespace", &self.namespace])
            .args(arguments);
        // The controller of a stack has its Lease in the stack's namespace, and no pod.
        command.env("CERTWAVE_CONTROLLER_NAMESPACE", &self.namespace);
        command.env("CERTWAVE_HISTORY_ADDRESS", &self.history);
        command.stdin(Stdio::null());
        command
    }

    /// Whatever it says.
    pub(crate) fn try_run(&self, arguments: &[&str]) -> Said {
        let Output { status, stdout, stderr } = self.command(arguments).output().unwrap();
        Said {
            code: status.code().unwrap(),
            out: String::from_utf8(stdout).unwrap(),
            err: String::from_utf8(stderr).unwrap(),
        }
    }

    /// What it prints when it does what it is asked for.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        let said = self.try_run(arguments);
        assert_eq!(said.code, 0, "{arguments:?}: {said:?}");
        said.out
    }

    /// The same as JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let all: Vec<_> = arguments.iter().copied().chain(["-o", "json"]).collect();
        serde_json::from_str(&self.run(&all)).unwrap()
    }

    /// What it says when it does not; `code` is the exit code.
    pub(crate) fn fails(&self, code: i32, arguments: &[&str]) -> String {
        let said = self.try_run(arguments);
        assert_eq!(said.code, code, "{arguments:?}: {said:?}");
        said.err
    }
}
