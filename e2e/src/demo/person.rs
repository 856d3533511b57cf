//! What a person types, and kubectl then does.

use anyhow::Result;

use super::ROTATION;
use crate::screen::Screen;
use crate::stack::Stack;

/// Makes the stack's namespace the one that kubectl takes, in the harness's own copy of a kubeconfig.
pub(super) fn goes_to_the_namespace(stack: &Stack) -> Result<()> {
    let namespace = stack.namespace();
    stack
        .api
        .kubectl(["config", "set-context", "--current", "--namespace", namespace])?;
    Ok(())
}

/// Writes off those that failed, and lets the Rotation go on.
pub(super) fn resumes(stack: &Stack, screen: &mut Screen) -> Result<()> {
    let change = r#"{"spec":{"control":{"resume":"three devices go to repair"}}}"#;
    let target = format!("rotation/{ROTATION}");
    let arguments = ["patch", &target, "--type=merge", "--field-manager=operator"];
    screen.say(&format!(
        "   $ kubectl {} \\\n       -p '{change}'",
        arguments.join(" ")
    ));
    let said = stack.api.kubectl(arguments.into_iter().chain(["-p", change]))?;
    screen.say(&format!("   {}", said.trim_end()));
    Ok(())
}
