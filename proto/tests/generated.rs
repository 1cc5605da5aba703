//! The checked-in Rust code is what the `.proto` files say.
//!
//! Generated code is checked in so that a build needs neither `protoc` nor a build script. This test
//! compiles every `proto/*.proto` with `protox` (a compiler written in Rust) and compares the result with
//! `proto/src/generated/`. After a change of a `.proto` file:
//!
//! ```text
//! REWRITE=1 cargo test -p proto --test generated
//! ```
//!
//! A new file needs, besides, a module of its own in `proto/src/lib.rs` and, before the first run, an
//! empty file in `src/generated/`: the crate must compile for this test to run.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const HEADER: &str =
    "// Made from the .proto files by `REWRITE=1 cargo test -p proto --test generated`; do not edit.\n";

#[test]
fn checked_in_code_matches_the_proto_files() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = root.join("src/generated");
    let fresh = generate(root);
    if std::env::var_os("REWRITE").is_some() {
        fs::create_dir_all(&folder).expect("create the folder");
        for stale in rust_files(&folder)
            .keys()
            .filter(|name| !fresh.contains_key(*name))
        {
            fs::remove_file(folder.join(stale)).expect("remove a stale file");
        }
        for (name, text) in &fresh {
            fs::write(folder.join(name), text).expect("write a generated file");
        }
    }
    let checked_in = rust_files(&folder);
    let names: Vec<_> = fresh.keys().collect();
    assert_eq!(
        checked_in.keys().collect::<Vec<_>>(),
        names,
        "files differ: run with REWRITE=1"
    );
    for (name, text) in &fresh {
        let same = &checked_in[name] == text;
        assert!(
            same,
            "src/generated/{name} is not what the .proto files say: run with REWRITE=1"
        );
    }
}

/// File name to text of everything the `.proto` files give.
fn generate(root: &Path) -> BTreeMap<String, String> {
    let protos = proto_files(root);
    let descriptors = protox::compile(&protos, [root]).expect("the .proto files compile");
    let out = tempfile::tempdir().expect("a temporary folder");
    prost_build::Config::new()
        .bytes(["."])
        .btree_map(["."])
        .default_package_filename("nacos_grpc_service")
        .out_dir(out.path())
        .compile_fds(descriptors)
        .expect("Rust code from the descriptors");
    let mut files = rust_files(out.path());
    for text in files.values_mut() {
        text.insert_str(0, HEADER);
    }
    files
}

fn proto_files(root: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(root)
        .expect("the crate's folder")
        .map(|entry| entry.expect("a folder entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "proto"))
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "no .proto file found");
    paths
}

fn rust_files(folder: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(folder).expect("a folder of generated files");
    entries
        .map(|entry| entry.expect("a folder entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| {
            let name = path
                .file_name()
                .expect("a file name")
                .to_string_lossy()
                .into_owned();
            (name, fs::read_to_string(&path).expect("a generated file"))
        })
        .collect()
}
