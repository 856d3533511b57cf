//! Devices in and out.

use certwave_e2e::stack::Stack;
use certwave_e2e::stack::objects::ONE_AT_A_TIME;

use super::plugin::Plugin;
use crate::shared;

#[tokio::test]
async fn devices_are_imported_exported_and_imported_again_without_a_change() {
    let stack = Stack::on(shared::api().await, "cli-import").await.unwrap();
    stack.apply_foundation(&ONE_AT_A_TIME).unwrap();
    let plugin = Plugin::of(&stack);
    let file = |name: &str, text: &str| {
        let path = stack.directory().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };

    // Not one is declared while one is wrong.
    let wrong = file("wrong.csv", "deviceId,labels.site\nM_1,north\n~m-2,north\nM_1,south\n");
    let said = plugin.fails(1, &["import", &wrong, "--fleet", "meters"]);
    assert!(
        said.contains("device 2") && said.contains("device 3") && said.contains("Nothing was changed"),
        "{said}"
    );
    assert!(stack.devices().await.unwrap().is_empty());

    let right = file("right.csv", "deviceId,labels.site\nM_1,north\nm-2,\"hall-2\"\nm-3,\n");
    assert!(
        plugin
            .run(&["import", &right, "--fleet", "meters", "--dry-run"])
            .contains("3 created, 0 changed")
    );
    assert!(stack.devices().await.unwrap().is_empty(), "a dry run changes nothing");
    assert!(
        plugin
            .run(&["import", &right, "--fleet", "meters"])
            .contains("3 created")
    );
    assert!(
        plugin
            .run(&["import", &right, "--fleet", "meters"])
            .contains("3 unchanged")
    );

    for form in ["csv", "json"] {
        let out = plugin.run(&["export", "-o", form]);
        let again = file(&format!("again.{form}"), &out);
        assert!(
            plugin
                .run(&["import", &again])
                .contains("0 created, 0 changed, 3 unchanged"),
            "{out}"
        );
    }
    assert_eq!(plugin.run(&["export", "-l", "site=north"]).lines().count(), 2);

    // A label that is gone from the file goes; what the API server refuses is named.
    let fewer = file(
        "fewer.json",
        r#"[{"deviceId": "M_1", "name": "m-1", "fleet": "meters"}, {"deviceId": "m-9", "name": "NoName", "fleet": "meters"}]"#,
    );
    let said = plugin.try_run(&["import", &fewer]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(
        said.out.contains("1 changed") && said.out.contains("1 refused") && said.err.contains("NoName"),
        "{said:?}"
    );
    let devices = stack.devices().await.unwrap();
    assert!(
        devices
            .iter()
            .find(|d| d.spec.device_id == "M_1")
            .unwrap()
            .spec
            .labels
            .is_empty()
    );
}
