//! Devices as rows of a file. Pure.
//!
//! Columns: `deviceId`, `fleet`, `name` (of the object; made from the deviceId where left out), and `labels.<name>` for each
//! label. What begins with `status.` is for people, and is not read back.

use std::collections::{BTreeMap, BTreeSet};

use certwave_crds::DeviceCertificate;
use kube::ResourceExt as _;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

const DEVICE: &str = "deviceId";
const FLEET: &str = "fleet";
const NAME: &str = "name";
const LABEL: &str = "labels.";
const STATUS: &str = "status.";
/// Bytes that a deviceId may have.
const ID_BYTES: usize = 56;

/// One device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::command) struct Row {
    pub(in crate::command) device_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::command) fleet: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::command) name: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(in crate::command) labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    status: BTreeMap<String, String>,
}

impl Row {
    pub(super) fn of(device: &DeviceCertificate) -> Self {
        let mut status = BTreeMap::new();
        if let Some(known) = &device.status {
            if let Some(state) = known.state {
                status.insert("state".to_owned(), format!("{state:?}"));
            }
            if let Some(current) = &known.certificates.current {
                status.extend(
                    current
                        .serial
                        .iter()
                        .map(|serial| ("serial".to_owned(), serial.clone())),
                );
                status.extend(
                    current
                        .not_after
                        .iter()
                        .map(|end| ("notAfter".to_owned(), crate::time::at(end.0))),
                );
            }
        }
        Self {
            device_id: device.spec.device_id.clone(),
            fleet: Some(device.spec.fleet_ref.name.clone()),
            name: Some(device.name_any()),
            labels: device.spec.labels.clone(),
            status,
        }
    }

    /// The name of its object: the one given, or the deviceId as far as it can be one.
    pub(in crate::command) fn object_name(&self) -> String {
        self.name.clone().unwrap_or_else(|| object_name(&self.device_id))
    }
}

/// A deviceId as the name of an object: in small letters, `_` as `-`, and nothing but a letter or digit at the ends.
fn object_name(id: &str) -> String {
    let name: String = id.to_lowercase().replace('_', "-");
    name.trim_end_matches(['-', '.']).to_owned()
}

fn refused(error: impl std::fmt::Display) -> Error {
    Error::Api(format!("the devices cannot be written: {error}"))
}

/// As CSV (RFC 4180).
pub(super) fn to_csv(rows: &[Row]) -> Result<String> {
    let labels: BTreeSet<&String> = rows.iter().flat_map(|row| row.labels.keys()).collect();
    let known = ["state", "serial", "notAfter"];
    let mut head = vec![DEVICE.to_owned(), FLEET.to_owned(), NAME.to_owned()];
    head.extend(labels.iter().map(|label| format!("{LABEL}{label}")));
    head.extend(known.iter().map(|field| format!("{STATUS}{field}")));
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(&head).map_err(refused)?;
    for row in rows {
        let (fleet, name) = (
            row.fleet.clone().unwrap_or_default(),
            row.name.clone().unwrap_or_default(),
        );
        let labels = labels
            .iter()
            .map(|label| row.labels.get(*label).cloned().unwrap_or_default());
        let status = known
            .iter()
            .map(|field| row.status.get(*field).cloned().unwrap_or_default());
        let cells = [row.device_id.clone(), fleet, name]
            .into_iter()
            .chain(labels)
            .chain(status);
        writer.write_record(cells).map_err(refused)?;
    }
    String::from_utf8(writer.into_inner().map_err(refused)?).map_err(refused)
}

/// As a JSON list.
pub(super) fn to_json(rows: &[Row]) -> Result<String> {
    Ok(serde_json::to_string_pretty(rows).map_err(refused)? + "\n")
}

/// Reads CSV. An empty cell is a label that the device does not have.
///
/// # Errors
/// With the line, for what is no CSV or has unknown columns.
pub(in crate::command) fn from_csv(text: &str) -> Result<Vec<Row>> {
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_reader(text.trim_start_matches('\u{feff}').as_bytes());
    let unreadable = |error: csv::Error| Error::Refused(format!("the file is no CSV: {error}"));
    let head = reader.headers().map_err(unreadable)?.clone();
    let fixed = |column: &str| [DEVICE, FLEET, NAME].contains(&column);
    let known = |column: &str| {
        fixed(column) || column.starts_with(STATUS) || column.strip_prefix(LABEL).is_some_and(|l| !l.is_empty())
    };
    if let Some(other) = head.iter().find(|column| !known(column)) {
        return Err(Error::Refused(format!(
            "column {other:?} is not known; there are {DEVICE}, {FLEET}, {NAME}, and {LABEL}<name> for each label"
        )));
    }
    if !head.iter().any(|column| column == DEVICE) {
        return Err(Error::Refused(format!("there is no column {DEVICE}")));
    }
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(unreadable)?;
        let mut row = Row::default();
        for (column, cell) in head.iter().zip(&record).filter(|(_, cell)| !cell.is_empty()) {
            match column {
                DEVICE => cell.clone_into(&mut row.device_id),
                FLEET => row.fleet = Some(cell.to_owned()),
                NAME => row.name = Some(cell.to_owned()),
                _ => {
                    if let Some(label) = column.strip_prefix(LABEL) {
                        row.labels.insert(label.to_owned(), cell.to_owned());
                    }
                }
            }
        }
        rows.push(row);
    }
    Ok(rows)
}

/// Reads a JSON list.
///
/// # Errors
/// For what is none, with the place.
pub(in crate::command) fn from_json(text: &str) -> Result<Vec<Row>> {
    serde_json::from_str(text).map_err(|error| Error::Refused(format!("the file is no JSON list of devices: {error}")))
}

/// What is wrong with the rows, each with its number from 1; nothing is sent unless all are right.
pub(in crate::command) fn faults(rows: &[Row]) -> Vec<String> {
    let mut faults = Vec::new();
    let (mut ids, mut names) = (BTreeMap::new(), BTreeMap::new());
    for (number, row) in rows.iter().enumerate().map(|(index, row)| (index + 1, row)) {
        let id = &row.device_id;
        if !is_device_id(id) {
            faults.push(format!(
                "device {number}: deviceId {id:?} must be 1 to {ID_BYTES} of A-Z a-z 0-9 . _ - and begin with a letter or digit"
            ));
        } else if let Some(first) = ids.insert(id.clone(), number) {
            faults.push(format!(
                "device {number}: deviceId {id:?} is that of device {first}, too"
            ));
        }
        let name = row.object_name();
        if let Some(first) = names.insert(name.clone(), number)
            && ids.len() == number
        {
            faults.push(format!(
                "device {number}: its object would be called {name}, as that of device {first}; give a name"
            ));
        }
        if row.fleet.is_none() {
            faults.push(format!("device {number}: no fleet; give a column fleet, or --fleet"));
        }
    }
    faults
}

fn is_device_id(id: &str) -> bool {
    let inner = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
    id.len() <= ID_BYTES && id.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric) && id.bytes().all(inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn row(id: &str) -> Row {
        Row {
            device_id: id.to_owned(),
            fleet: Some("meters".to_owned()),
            ..Row::default()
        }
    }

    #[test]
    fn what_spreadsheets_write_is_read() {
        let rows = from_csv("\u{feff}deviceId, fleet,labels.site,status.state\r\nm-1,meters,\"north, hall 2\",Active\r\nm-2,meters,,\r\n").unwrap();
        assert_eq!(rows[0].labels["site"], "north, hall 2");
        assert!(rows[1].labels.is_empty(), "an empty cell is no label");
    }

    #[test]
    fn a_column_that_is_mistyped_is_not_dropped_in_silence() {
        let error = from_csv("deviceId,label.site\nm-1,x\n").unwrap_err().to_string();
        assert!(
            error.contains("label.site") && error.contains("labels.<name>"),
            "{error}"
        );
        assert!(from_csv("fleet\nmeters\n").is_err());
        assert!(from_json(r#"[{"deviceId": "m-1", "flet": "x"}]"#).is_err());
    }

    #[test]
    fn each_wrong_row_is_named() {
        let rows = [
            row("m-1"),
            row("~x"),
            row("m-1"),
            row(&"a".repeat(57)),
            Row {
                fleet: None,
                ..row("m-2")
            },
            row("M_1"),
        ];
        let found = faults(&rows);
        assert_eq!(found.len(), 4, "{found:#?}");
        for (fault, number) in found.iter().zip([2, 3, 4, 5]) {
            assert!(fault.contains(&format!("device {number}")), "{fault}");
        }
    }

    #[test]
    fn two_that_would_share_an_object_are_told() {
        let found = faults(&[row("m-1"), row("M_1")]);
        assert!(found[0].contains("would be called m-1"), "{found:?}");
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_back(
            ids in proptest::collection::btree_set("[A-Za-z0-9][A-Za-z0-9._-]{0,20}", 1..10),
            site in "[a-zA-Z0-9]([ ,\"a-zA-Z0-9]{0,8}[a-zA-Z0-9])?",
        ) {
            let rows: Vec<Row> = ids.iter().enumerate().map(|(n, id)| Row {
                labels: if n % 2 == 0 { BTreeMap::from([("site".to_owned(), site.clone())]) } else { BTreeMap::new() },
                name: Some(object_name(id)),
                ..row(id)
            }).collect();
            prop_assert_eq!(from_csv(&to_csv(&rows).unwrap()).unwrap(), rows.clone());
            prop_assert_eq!(from_json(&to_json(&rows).unwrap()).unwrap(), rows);
        }
    }
}
