//! `certwave ledger` on a ledger in `PostgreSQL`.

use anyhow::{Context as _, ensure};
use certwave_e2e::{tools, wait_for};
use serde_json::json;

use super::world::Shared;
use crate::faults::world::ENDS;

#[tokio::test]
async fn a_backup_is_whole_wherever_it_goes_and_a_forged_line_is_found() {
    let mut world = Shared::new("pg-verify").await;
    world.enrol("m", 2, &[]).await;
    // The controller goes on meanwhile.
    let told = Shared::ledger_command(&world.url, "verify").unwrap();
    assert!(told.contains("the audit's chain is whole"), "{told}");
    // A backup is a ledger by itself, and goes into another database.
    let copy = world.stack.directory().join("ledger.backup").display().to_string();
    let told = Shared::ledger_copy(&world.url, "backup", &["--to", &copy]).unwrap();
    assert!(told.contains("2 devices"), "{told}");
    let told = Shared::ledger_command(&copy, "verify").unwrap();
    assert!(told.contains("is whole: number"), "{told}");
    let over = format!(
        "{:#}",
        Shared::ledger_copy(&world.url, "restore", &["--from", &copy]).unwrap_err()
    );
    assert!(over.contains("holds a ledger already"), "{over}");
    world.server.create_database("moved").unwrap();
    let moved = world.server.tcp_url("moved");
    let told = Shared::ledger_copy(&moved, "restore", &["--from", &copy]).unwrap();
    assert!(told.contains("2 devices"), "{told}");
    let told = Shared::ledger_command(&moved, "verify").unwrap();
    assert!(
        told.contains("restored at") && told.contains("is whole: number"),
        "{told}"
    );
    // Not even the owner changes a line by mistake; whoever means to, takes the trigger away first.
    let forge = "UPDATE audit SET who = 'somebody else' WHERE id = 2";
    let refused = world.sql(forge).unwrap_err().to_string();
    assert!(refused.contains("the audit is final"), "{refused}");
    world
        .sql(&format!("ALTER TABLE audit DISABLE TRIGGER ALL; {forge}"))
        .unwrap();
    let found = format!("{:#}", Shared::ledger_command(&world.url, "verify").unwrap_err());
    assert!(found.contains("line 2"), "{found}");
}

#[tokio::test]
async fn a_dump_that_is_brought_back_counts_as_restored_and_goes_on() {
    let mut world = Shared::new("pg-dump").await;
    let ids = world.enrol("m", 2, &[]).await;
    copy(&world, "again");
    // What is issued after the backup is lost with the server.
    let late = world.enrol("late", 1, &[]).await;
    world.stack.stop_controller().unwrap();

    let again = world.server.tcp_url("again");
    let unasked = Shared::ledger_command(&again, "restore").unwrap_err();
    assert!(format!("{unasked:#}").contains("--force"), "{unasked:#}");
    Shared::ledger_copy(&again, "restore", &["--force"]).unwrap();
    "again".clone_into(&mut world.name);
    assert_ne!(world.sql("SELECT restored_at FROM ledger").unwrap(), "");
    assert!(
        Shared::ledger_command(&again, "verify")
            .unwrap()
            .contains("restored at")
    );

    world.stack.keep_ledger(again);
    world.stack.start_controller().await.unwrap();
    world.wait_enrolled(&ids).await;
    taken_in(&world, 3).await;
    world.wait_enrolled(&late).await;
    let first = world.certificates().await;
    world.rotate("after", &json!({}));
    world.wait_renewed(&ids, &first).await;
}

/// What was lost is known again: so many devices have certificates.
async fn taken_in(world: &Shared, devices: usize) {
    let taken_in = wait_for("what was lost to be taken in", ENDS, || async {
        let open = world.sql("SELECT count(*) FROM ledger WHERE restored_at IS NOT NULL")?;
        ensure!(open == "0", "still restored");
        let known = world.sql("SELECT count(*) FROM devices WHERE current IS NOT NULL")?;
        ensure!(known == devices.to_string(), "{known} devices have certificates");
        Ok(())
    });
    world.told(taken_in.await);
}

/// Copies a database of this server into a new one.
fn copy(world: &Shared, to: &str) {
    let dump = world.stack.directory().join("ledger.dump");
    let mut save = world.server.client("pg_dump").unwrap();
    tools::output(save.args(["--format=custom", "--file"]).arg(&dump).arg(&world.url)).unwrap();
    world.server.create_database(to).unwrap();
    let mut load = world.server.client("pg_restore").unwrap();
    let to = world.server.tcp_url(to);
    tools::output(load.args(["--exit-on-error", "--dbname", &to]).arg(&dump)).unwrap();
}

#[tokio::test]
async fn a_failover_that_lost_writes_is_noticed_by_the_leader_and_made_good() {
    let mut world = Shared::new("pg-failover").await;
    let ids = world.enrol("m", 2, &[]).await;
    copy(&world, "standby");
    let late = world.enrol("late", 1, &[]).await;
    let lines = world.sql("SELECT count(*) FROM audit").unwrap();
    world.wait_noted(lines.parse().unwrap()).await;

    // The standby takes the place of the one in use, which had told the leader of more.
    let name = world.name.clone();
    let connections = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
    for sql in [
        format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false"),
        connections,
        format!("ALTER DATABASE {name} RENAME TO lost"),
        format!("ALTER DATABASE standby RENAME TO {name}"),
    ] {
        world.server.sql("postgres", &sql).unwrap();
    }
    let ended = wait_for("the leader to end", ENDS, || {
        let ended = world.stack.controller().unwrap().exited();
        async move { ended?.context("it runs") }
    });
    assert!(!ended.await.unwrap().success());
    assert!(
        world.log().contains("the ledger has lost what was written"),
        "{}",
        world.log()
    );

    // As Kubernetes would.
    world.stack.start_controller().await.unwrap();
    world.wait_enrolled(&ids).await;
    taken_in(&world, 3).await;
    let first = world.certificates().await;
    world.rotate("after", &json!({}));
    world.wait_renewed(&[ids, late].concat(), &first).await;
}
