//! The tables of docs/operations.md are the code's own. `REWRITE=1` writes them anew.

use std::fs;
use std::path::Path;

/// Mark and the text that belongs between `<!-- mark:begin -->` and `<!-- mark:end -->`.
fn tables() -> [(&'static str, String); 4] {
    [
        ("settings", rnacos::settings::markdown()),
        ("not-taken", rnacos::settings::not_taken_markdown()),
        ("routes", rnacos::http::routes::markdown()),
        ("metrics", rnacos::metrics::names::markdown()),
    ]
}

#[test]
fn the_tables_of_operations_md_are_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md");
    let text = fs::read_to_string(&path).expect("docs/operations.md");
    let mut wanted = text.clone();
    for (mark, table) in tables() {
        let (begin, end) = (format!("<!-- {mark}:begin -->\n"), format!("<!-- {mark}:end -->"));
        let from = wanted.find(&begin).unwrap_or_else(|| panic!("no mark {begin:?}")) + begin.len();
        let to = from
            + wanted[from..]
                .find(&end)
                .unwrap_or_else(|| panic!("no mark {end:?}"));
        wanted.replace_range(from..to, &table);
    }
    if std::env::var_os("REWRITE").is_some() {
        fs::write(&path, &wanted).expect("docs/operations.md can be written");
        return;
    }
    assert!(
        text == wanted,
        "docs/operations.md is not up to date: REWRITE=1 cargo test --test docs"
    );
}
