//! Writes the CRDs as YAML beside this crate's `Cargo.toml`, and their reference, `docs/crds.md`.

use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (name, text) in certwave_crds::files()? {
        std::fs::write(dir.join(&name), text)?;
        println!("crds/{name}");
    }
    std::fs::write(dir.join("../docs/crds.md"), certwave_crds::reference()?)?;
    println!("docs/crds.md");
    Ok(())
}
