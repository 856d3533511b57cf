//! Prints the manifest for krew: `krew-manifest <version> <directory with the archives of the release>`.

use std::path::Path;

use certwave_cli::krew;

fn main() -> Result<(), String> {
    let mut arguments = std::env::args().skip(1);
    let (Some(version), Some(directory), None) = (arguments.next(), arguments.next(), arguments.next()) else {
        return Err("usage: krew-manifest VERSION DIRECTORY".to_owned());
    };
    let directory = Path::new(&directory);
    let digest = |archive: &str| {
        let bytes = std::fs::read(directory.join(archive)).ok()?;
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes);
        Some(hex::encode(digest))
    };
    let manifest = krew::manifest(version.trim_start_matches('v'), digest);
    if manifest["spec"]["platforms"].as_array().is_none_or(Vec::is_empty) {
        let names: Vec<_> = krew::PLATFORMS
            .iter()
            .map(|(os, arch)| krew::archive(os, arch))
            .collect();
        return Err(format!("{} has none of {}", directory.display(), names.join(", ")));
    }
    print!(
        "{}",
        serde_saphyr::to_string(&manifest).map_err(|error| error.to_string())?
    );
    Ok(())
}
