//! Writes the inputs that the searches start from into `corpus/`. Files that are there already and are no
//! seeds (findings, inputs that a search has kept) stay.

use std::fs;
use std::io;

use rnacos_fuzz::replay::corpus_folder;
use rnacos_fuzz::targets::TARGETS;

fn main() -> io::Result<()> {
    for target in TARGETS {
        let folder = corpus_folder(target.name);
        fs::create_dir_all(&folder)?;
        for (name, data) in (target.seeds)() {
            fs::write(folder.join(name), data)?;
        }
    }
    Ok(())
}
