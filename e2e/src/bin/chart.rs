//! `make chart`: writes anew what is made from the Helm chart.

use anyhow::Result;

fn main() -> Result<()> {
    for (path, text) in certwave_e2e::chart::generated()? {
        std::fs::write(&path, text)?;
        println!("{}", path.display());
    }
    Ok(())
}
