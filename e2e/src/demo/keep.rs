//! `KEEP=1`: the demo's end leaves all running, for people who want to look around.

use anyhow::Result;
use serde_json::json;

use super::ROTATION;
use super::staging::Staging;
use crate::screen::Screen;
use crate::stack::Stack;
use crate::tools;

/// Says how to look around, and waits for Ctrl-C.
pub(super) async fn running(screen: &mut Screen, stack: &Stack, staging: &Staging) -> Result<()> {
    let again = stack.directory().join("again.json");
    let mut rotation = staging.rotation(stack.namespace(), ROTATION);
    rotation["metadata"] = json!({ "generateName": "again-" });
    std::fs::write(&again, rotation.to_string())?;
    // A kubectl that was built with the API server is not on the search path.
    let path = match (tools::find("kubectl"), tools::kubectl()?.parent()) {
        (None, Some(directory)) => format!("export PATH=$PATH:{}\n  ", directory.display()),
        _ => String::new(),
    };
    screen.say(&format!(
        "KEEP: all runs on until Ctrl-C. To look around, in another terminal:\n  \
         {path}export KUBECONFIG={}\n  \
         kubectl get certwave                 # everything\n  \
         kubectl get devcert -o wide          # each device, and its last job\n  \
         kubectl describe rot {ROTATION}            # the rotation, and whom it failed on\n  \
         kubectl explain fleet.spec.rotation  # what can be set\n  \
         kubectl create -f {}  # rotate again: it stops as well,\n  \
         kubectl get rot -w                   # watch it, and resume it as above\n\
         Logs, and the devices' keys and certificates: {}",
        stack.api.kubeconfig().display(),
        again.display(),
        stack.directory().display(),
    ));
    tokio::signal::ctrl_c().await?;
    Ok(())
}
