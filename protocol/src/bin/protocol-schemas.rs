//! Writes the JSON Schemas of the messages into `docs/schemas/`.

use std::path::Path;

fn main() -> std::io::Result<()> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schemas");
    std::fs::create_dir_all(&dir)?;
    for (name, text) in certwave_protocol::schema::files() {
        std::fs::write(dir.join(&name), text)?;
        println!("docs/schemas/{name}");
    }
    Ok(())
}
